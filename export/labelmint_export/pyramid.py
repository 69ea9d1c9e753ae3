"""Laplacian pyramids: how two pictures differ at every scale.

Legend: N images, C channels, r side of a picture, S levels.
"""

import torch

from labelmint_export.generator.layers import binomial_filter, downsample_2x, upsample_2x

SMALLEST_SIDE = 4


def laplacian_levels(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compare two pictures at every level of their pyramids (Bojanowski et al. 2018, without their weights).

    Args:
        a: float [N, C, r, r], r a power of two and at least 4.
        b: Likewise.

    Returns:
        float [S, N]: mean absolute difference of each level, finest first; the last one is 4 pixels wide.
    """
    rest = a - b  # a pyramid is linear
    kernel = binomial_filter().to(rest.device)
    levels = []
    while rest.shape[2] > SMALLEST_SIDE:
        low = downsample_2x(rest, kernel)
        levels.append((rest - upsample_2x(low, kernel)).abs().mean(dim=(1, 2, 3)))
        rest = low
    return torch.stack([*levels, rest.abs().mean(dim=(1, 2, 3))])
