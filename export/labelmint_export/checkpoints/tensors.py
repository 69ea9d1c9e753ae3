"""Arrays of a file -> tensors of a module."""

from collections.abc import Mapping

import numpy as np
import torch

from labelmint_export.checkpoints.records import Array
from labelmint_export.errors import CheckpointError


def to_float32(tensors: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Copy arrays out of a file.

    Raises:
        CheckpointError: One does not hold floating-point numbers.
    """
    copies = {}
    for name, array in tensors.items():
        if array.dtype.kind != "f":
            raise CheckpointError(
                f"{name} has dtype {array.dtype}, expected a floating-point one; take another snapshot", field=name
            )
        with np.errstate(over="ignore"):  # becomes infinite, which is refused later
            copies[name] = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    return copies
