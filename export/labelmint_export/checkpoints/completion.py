"""What some checkpoints leave out, made so that everyone gets the same: the mean w and the fixed noise."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch

from labelmint import addresses

SEED = 0
MEAN_LATENTS = 8000
"""As many as DatasetGAN's program averages."""
BATCH = 1000


class LatentMapping(Protocol):
    """The mapping network of any backbone."""

    w_avg: torch.Tensor

    def map_to_w(self, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """float32 [N, z_dim] to float32 [N, w_dim]."""
        ...


@torch.no_grad()
def estimate_w_avg(mapping: LatentMapping, z_dim: int) -> None:
    """Set the mean w of an unconditional generator to that of the first 8,000 latents of seed 0.

    Args:
        mapping: On the CPU; its `w_avg` is overwritten.
        z_dim: Length of z.
    """
    total = torch.zeros(mapping.w_avg.shape, dtype=torch.float64)
    for start in range(0, MEAN_LATENTS, BATCH):
        indices = np.arange(start, start + BATCH, dtype=np.uint64)
        z = torch.from_numpy(addresses.latents(SEED, indices, z_dim))
        total += mapping.map_to_w(z).double().sum(dim=0)
    mapping.w_avg.copy_(total / MEAN_LATENTS)


def fixed_noise(sides: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Draw the noise of each layer from the address rule's noise domain: seed 0, the layer's place as the index.

    Args:
        sides: Layer name -> r, in the order of the layers.

    Returns:
        Layer name -> float32 [r, r].
    """
    return {
        name: torch.from_numpy(addresses.noise(SEED, index, (side, side)))
        for index, (name, side) in enumerate(sides.items())
    }
