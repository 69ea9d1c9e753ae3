"""What some checkpoints leave out, made so that everyone gets the same: the mean w and the fixed noise."""

import numpy as np
import torch

from labelmint import addresses
from labelmint_export.errors import CheckpointError
from labelmint_export.generator.backbone import MappingNetwork

SEED = 0
MEAN_LATENTS = 8000
"""As many as DatasetGAN's program averages."""
BATCH = 1000
MAX_MAPPING_WEIGHTS = 3 << 20
"""Weights of a mapping network whose mean w is estimated, half again those of the published ones: a second of work."""
MAX_MAPPING_WIDTH = 1024
"""Its widest layer, latent included, twice that of the published ones."""
MAX_NOISE_SIDE = 2048
"""The largest layer for which noise is made: all up to there take three seconds, the next ones four times that."""


@torch.no_grad()
def estimate_w_avg(mapping: MappingNetwork, z_dim: int) -> None:
    """Set the mean w of an unconditional generator to that of the first 8,000 latents of seed 0.

    Args:
        mapping: On the CPU; its `w_avg` is overwritten.
        z_dim: Length of z.

    Raises:
        CheckpointError: The network is so large that it would take long.
    """
    weights = [parameter.shape for parameter in mapping.parameters() if parameter.ndim == 2]
    count, width = sum(shape.numel() for shape in weights), max(max(shape) for shape in weights)
    if count > MAX_MAPPING_WEIGHTS or width > MAX_MAPPING_WIDTH:
        raise CheckpointError(
            f"the mapping network has {count} weights in layers of up to {width} features, expected at most "
            f"{MAX_MAPPING_WEIGHTS} and {MAX_MAPPING_WIDTH} to average {MEAN_LATENTS} latents; give the mean w with "
            "mean_latent",
            field="mean_latent",
        )
    total = torch.zeros(mapping.w_avg.shape, dtype=torch.float64)
    for start in range(0, MEAN_LATENTS, BATCH):
        indices = np.arange(start, start + BATCH, dtype=np.uint64)
        z = torch.from_numpy(addresses.latents(SEED, indices, z_dim))
        total += mapping.map_to_w(z).double().sum(dim=0)
    mapping.w_avg.copy_(total / MEAN_LATENTS)


def check_noise_side(name: str, side: int) -> None:
    """Check that noise can be made for a layer whose noise a file leaves out.

    Args:
        name: Of the noise, for the error.
        side: r.

    Raises:
        CheckpointError: The layer is too large.
    """
    if side > MAX_NOISE_SIDE:
        raise CheckpointError(
            f"{name} is missing for a layer of {side} x {side}, expected noise in the file for layers above "
            f"{MAX_NOISE_SIDE} x {MAX_NOISE_SIDE}; give a snapshot that holds its noise",
            field=name,
        )


def draw_noise(index: int, side: int) -> torch.Tensor:
    """Draw the noise of a layer from the address rule's noise domain: seed 0, the layer's place as the index.

    Args:
        index: Place among the layers that add noise.
        side: r.

    Returns:
        float32 [r, r].
    """
    return torch.from_numpy(addresses.noise(SEED, index, (side, side)))
