"""Exact interpolation of the coarse levels, by way of their knots.

A level of resolution r, resized to H (align_corners false), is piecewise bilinear with knots at the centres (k + 1/2) H
/ r. The grid of the 2 r + 1 positions j H / (2 r) holds the knots of r and of every coarser level. So a sum of levels
up to r, sampled on this "knot grid", keeps the whole function, and going from one knot grid to the next, and from the
last to the pixels, is plain linear interpolation that loses nothing.

Legend: N images, U planes, r level, H = W label resolution.
"""

import torch


def level_to_knots(resolution: int) -> torch.Tensor:
    """Interpolation from a level's pixels to its knot grid: float64 [2 r + 1, r]."""
    matrix = torch.zeros(2 * resolution + 1, resolution, dtype=torch.float64)
    for j in range(2 * resolution + 1):
        low, high = max((j - 2) // 2 if j % 2 == 0 else (j - 1) // 2, 0), min(j // 2, resolution - 1)
        matrix[j, low] += 0.5
        matrix[j, high] += 0.5
    return matrix


def refine_knots(resolution: int, finer: int) -> torch.Tensor:
    """Interpolation from the knot grid of r to that of a finer level R: float64 [2 R + 1, 2 r + 1]."""
    matrix = torch.zeros(2 * finer + 1, 2 * resolution + 1, dtype=torch.float64)
    for j in range(2 * finer + 1):
        position = j * resolution / finer
        low = min(int(position), 2 * resolution - 1)
        matrix[j, low] = 1.0 - (position - low)
        matrix[j, low + 1] = position - low
    return matrix


def knots_to_pixels(resolution: int, pixels: int) -> torch.Tensor:
    """Interpolation from the knot grid of r to pixel centres: float64 [H, 2 r + 1]."""
    spacing = pixels / (2 * resolution)
    matrix = torch.zeros(pixels, 2 * resolution + 1, dtype=torch.float64)
    for i in range(pixels):
        position = (i + 0.5) / spacing
        low = min(int(position), 2 * resolution - 1)
        matrix[i, low] = 1.0 - (position - low)
        matrix[i, low + 1] = position - low
    return matrix


def interpolate(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply one interpolation along both axes: [N, U, a, a] and [b, a] to [N, U, b, b]."""
    return torch.matmul(matrix, torch.matmul(x, matrix.t()))
