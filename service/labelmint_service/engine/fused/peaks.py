"""Keypoints from heatmaps, by the rule `labelmint.graphs.PEAK_RULE`.

N images, K keypoints, H rows, W columns. Pixel centres lie at +0.5.
"""

from __future__ import annotations

from typing import Any

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

    def at(places: npt.NDArray[np.intp]) -> Floats:
        return np.take_along_axis(flat, np.clip(places, 0, height * width - 1), axis=2)

    values = [at(index), at(index - 1), at(index + 1), at(index - width), at(index + width)]
    return refine_peaks(index[..., 0], np.concatenate(values, axis=2), height, width)


def refine_peaks(index: npt.NDArray[np.integer[Any]], values: Floats, height: int, width: int) -> Floats:
    """Refine places below a pixel, as `find_peaks` says.

    Args:
        index: Integers [N, K]: places of the largest values, row by row.
        values: float32 [N, K, 5]: the largest value and its neighbours left, right, above and below; what stands for a
            neighbour outside the heatmap does not count.
        height: H.
        width: W.

    Returns:
        float32 [N, K, 3]: x, y (heatmap pixels), score (the largest value).
    """
    score = values[..., :1]
    row, column = index[..., None] // width, index[..., None] % width

    def offset(low: Floats, high: Floats, inside: npt.NDArray[np.bool_]) -> Floats:
        curvature = 2 * score - low - high
        shift = 0.5 * (high - low) / np.maximum(curvature, np.float32(1e-12))
        return np.where(inside & (curvature > 0), np.clip(shift, -0.5, 0.5), np.float32(0))

    left, right, above, below = (values[..., number : number + 1] for number in range(1, 5))
    x = (column + 0.5).astype(np.float32) + offset(left, right, (column > 0) & (column < width - 1))
    y = (row + 0.5).astype(np.float32) + offset(above, below, (row > 0) & (row < height - 1))
    return np.concatenate([x, y, score], axis=2)
