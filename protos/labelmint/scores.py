"""The image score: how unsure the interpreter is about a whole sample.

The score is the mean of the floor(H * W / 10) largest values of the uncertainty map (at least one value).
It is exact and the same everywhere: float16 values are multiples of 2**-24, so their sum in float64 carries no rounding
error up to 2**29 nats, whatever the order. Only the last division and the step to float32 round, once each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.errors import ArrayError

__all__ = ["NUM_BINS", "image_score", "score_counts"]

NUM_BINS = 0x7C00
"""Bit patterns of float16 numbers from zero up to the largest finite one; they order like their values."""
_NEGATIVE_ZERO_BITS = 0x8000
_VALUES = np.arange(NUM_BINS, dtype=np.uint16).view(np.float16).astype(np.float64)


def image_score(uncertainty_map: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Score each sample by the most uncertain tenth of its pixels.

    Args:
        uncertainty_map: float16 [N, H, W], nats, finite and not negative; the delivered (cropped) frame.

    Returns:
        float32 [N], nats.

    Raises:
        ArrayError: The array has another dtype or rank, holds no pixel, or holds a negative or non-finite value.
    """
    if uncertainty_map.dtype != np.float16 or uncertainty_map.ndim != 3 or 0 in uncertainty_map.shape[1:]:
        raise ArrayError(
            f"uncertainty_map is {uncertainty_map.dtype} {list(uncertainty_map.shape)}, expected float16 [N, H, W] "
            "with H and W at least 1; pass the map of one batch",
            field="uncertainty_map",
        )
    _, height, width = uncertainty_map.shape
    native = np.ascontiguousarray(uncertainty_map, dtype=np.float16).view(np.uint16)
    return np.array([score_counts(_count(image), height * width) for image in native], dtype=np.float32)


# Any: integers of every size.
def score_counts(counts: npt.NDArray[np.integer[Any]], num_pixels: int) -> npt.NDArray[np.float32]:
    """Score samples by how often each uncertainty occurs in them, exactly as `image_score` does.

    Args:
        counts: Integers [..., bins], at most `NUM_BINS` of them: pixels whose uncertainty has these bits as a float16.
            Zeros, which add nothing, need not be counted.
        num_pixels: Of each sample, zeros included.

    Returns:
        float32 [...], nats.
    """
    num_largest = max(1, num_pixels // 10)
    descending = counts[..., :0:-1]
    before = np.cumsum(descending, axis=-1, dtype=np.int64) - descending
    taken = np.clip(num_largest - before, 0, descending)
    # Not a dot product: that is a library's, with threads of its own.
    sums = (taken * _VALUES[descending.shape[-1] : 0 : -1]).sum(axis=-1)
    scores: npt.NDArray[np.float32] = (sums / num_largest).astype(np.float32)
    return scores


def _count(image: npt.NDArray[np.uint16]) -> npt.NDArray[np.intp]:
    """How often each bit pattern up to the largest occurs in a map, negative zero aside."""
    counts = np.bincount(image.reshape(-1))
    if counts[NUM_BINS:_NEGATIVE_ZERO_BITS].any() or counts[_NEGATIVE_ZERO_BITS + 1 :].any():
        raise ArrayError(
            "uncertainty_map holds a negative or non-finite value, expected JS divergences of at least 0; "
            "discard the batch",
            field="uncertainty_map",
        )
    return counts[:NUM_BINS]
