"""Arrays of a file -> tensors of a module. Names and shapes are compared before anything is converted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from labelmint_export.checkpoints.records import Array
from labelmint_export.errors import CheckpointError
from labelmint_export.stored import check_shapes, describe_module, fill_described

Module = TypeVar("Module", bound=torch.nn.Module)


def check_floating(arrays: Mapping[str, Array]) -> None:
    """Check the element types of arrays, under the names that they have in the file.

    Raises:
        CheckpointError: One does not hold floating-point numbers.
    """
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise CheckpointError(
                f"{name} has dtype {array.dtype}, expected a floating-point one; take another snapshot", field=name
            )


def to_float32(array: Array) -> torch.Tensor:
    """Copy an array out of a file."""
    with np.errstate(over="ignore"):  # becomes infinite, which is refused later
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def fill_from_arrays(
    make: Callable[[], Module],
    arrays: Mapping[str, Array],
    path: Path,
    absent: Mapping[str, Callable[[], torch.Tensor]] | None = None,
) -> Module:
    """Make a module and fill it from a file.

    Args:
        make: Makes the module that the file describes.
        arrays: Its state dict under our names.
        path: The file, for the errors.
        absent: Name -> makes a tensor that the file leaves out; called when all that the file holds fits.

    Returns:
        The module in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: The module cannot be made, or the arrays are not its own.
    """
    absent = absent or {}
    described = describe_module(make, path)
    expected = described.state_dict()
    shapes = {name: array.shape for name, array in arrays.items()}
    check_shapes(described, shapes | {name: tuple(expected[name].shape) for name in absent if name in expected}, path)
    check_floating(arrays)
    tensors = {name: to_float32(array) for name, array in arrays.items()}
    return fill_described(make, tensors | {name: complete() for name, complete in absent.items()}, path)
