"""Latents that another program wrote."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.errors import GeneratorError
from labelmint_export.generator.config import BackboneConfig
from labelmint_export.npy_files import read_npy

MAX_GIVEN = 10_000
"""Latents in a file."""


def read_latents(path: Path, config: BackboneConfig, kind: Literal["z", "w"]) -> torch.Tensor:
    """Read latents from a `.npy` file.

    Args:
        path: The file: z float [N, z_dim], or w float [N, w_dim], one for all layers, or [N, L, w_dim], one for each. L
            may be more than num_ws: DatasetGAN's program has 18 for generators of every size, and the last ones paint
            nothing.
        config: Shape of the generator.
        kind: What the file holds.

    Returns:
        z float32 [N, z_dim], or ws float32 [N, num_ws, w_dim].

    Raises:
        GeneratorError: The file cannot be read, or holds something else.
        OSError: It is not there.
    """
    size = config.z_dim if kind == "z" else config.w_dim
    try:
        array = read_npy(path)
    except ValueError as error:
        raise GeneratorError(f"{kind} {path} cannot be read: {error}", field=kind) from error
    shape, expected = array.shape, f"[N, {size}]"
    fits = len(shape) == 2 and shape[1] == size
    if kind == "w":
        expected += f" or [N, {config.num_ws} or more, {size}]"
        fits = fits or (len(shape) == 3 and shape[1] >= config.num_ws and shape[2] == size)
    if not fits or not 1 <= shape[0] <= MAX_GIVEN:
        raise GeneratorError(
            f"{kind} in {path} has shape {list(shape)}, expected {expected} with N from 1 to {MAX_GIVEN}; give the "
            "latents of this generator",
            field=kind,
        )
    latents: npt.NDArray[np.float32] = array.astype(np.float32)
    if array.dtype.kind != "f" or not np.isfinite(latents).all():
        raise GeneratorError(f"{kind} in {path} is {array.dtype} or not finite, expected finite floats", field=kind)
    if kind == "z":
        return torch.from_numpy(latents)
    styles = latents[:, None] if latents.ndim == 2 else latents[:, : config.num_ws]
    return torch.from_numpy(np.broadcast_to(styles, (len(styles), config.num_ws, size)).copy())
