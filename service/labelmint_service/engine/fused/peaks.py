"""Keypoints from heatmaps, by the rule `quadratic_3x3` of the manifest.

N images, K keypoints, H rows, W columns. Pixel centres lie at +0.5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def find_peaks(heatmaps: Floats) -> Floats:
    """Find each heatmap's largest value and refine its place below a pixel.

    Along each axis: the vertex of the parabola through the peak and its two neighbours, at most half a pixel away; at a
    border there is no neighbour and no refinement. The first of equal values wins, in row-major order.

    Args:
        heatmaps: float32 [N, K, H, W].

    Returns:
        float32 [N, K, 3]: x, y (heatmap pixels), score (the largest value).
    """
    height, width = heatmaps.shape[2:]
    flat = heatmaps.reshape(*heatmaps.shape[:2], height * width)
    index = flat.argmax(axis=2)[..., None]  # [N, K, 1]
    score = np.take_along_axis(flat, index, axis=2)
    row, column = index // width, index % width

    def offset(step: int, inside: npt.NDArray[np.bool_]) -> Floats:
        low = np.take_along_axis(flat, np.maximum(index - step, 0), axis=2)
        high = np.take_along_axis(flat, np.minimum(index + step, height * width - 1), axis=2)
        curvature = 2 * score - low - high
        shift = 0.5 * (high - low) / np.maximum(curvature, np.float32(1e-12))
        return np.where(inside & (curvature > 0), np.clip(shift, -0.5, 0.5), np.float32(0))

    x = (column + 0.5).astype(np.float32) + offset(1, (column > 0) & (column < width - 1))
    y = (row + 0.5).astype(np.float32) + offset(width, (row > 0) & (row < height - 1))
    return np.concatenate([x, y, score], axis=2)
