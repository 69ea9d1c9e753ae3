"""Inputs of the mapping network that follow from addresses."""

import numpy as np
import numpy.typing as npt
import torch

from labelmint.addresses import class_indices, latents
from labelmint_export.errors import GeneratorError
from labelmint_export.generator.config import BackboneConfig


def draw_latents(
    config: BackboneConfig, seed: int, indices: npt.NDArray[np.uint64], class_index: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Draw latents, and the classes of a conditional generator.

    Args:
        config: Shape of the generator.
        seed: In [0, 2**64).
        indices: uint64 [N].
        class_index: Class of all of them; None draws each from all classes alike.

    Returns:
        z float32 [N, z_dim], and c float32 [N, c_dim], one-hot; None for an unconditional generator.

    Raises:
        GeneratorError: The class is none of the generator's.
    """
    z = torch.from_numpy(latents(seed, indices, config.z_dim))
    if config.c_dim and class_index is None:
        chosen = class_indices(seed, indices, np.full(config.c_dim, 1.0 / config.c_dim))
        return z, torch.eye(config.c_dim)[torch.from_numpy(chosen)]
    return z, class_vectors(config, len(z), class_index)


def class_vectors(config: BackboneConfig, count: int, class_index: int | None) -> torch.Tensor | None:
    """Make the classes of latents of one class.

    Args:
        config: Shape of the generator.
        count: N.
        class_index: Class of all of them; None for an unconditional generator.

    Returns:
        c float32 [N, c_dim], one-hot; None for an unconditional generator.

    Raises:
        GeneratorError: The class is none of the generator's.
    """
    expected = f"0 to {config.c_dim - 1}" if config.c_dim else "none: the generator is unconditional"
    if (class_index is None) is bool(config.c_dim) or not 0 <= (class_index or 0) < max(config.c_dim, 1):
        raise GeneratorError(f"generator class is {class_index}, expected {expected}", field="class_index")
    return None if class_index is None else torch.eye(config.c_dim)[class_index].expand(count, -1)
