"""The image score: how unsure the interpreter is about a whole sample.

The score is the mean of the floor(H * W / 10) largest values of the uncertainty map (at least one value).
It is exact and the same everywhere: float16 values are multiples of 2**-24, so their sum in float64 carries no rounding
error up to 2**29 nats, whatever the order. Only the last division and the step to float32 round, once each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelmint.errors import ArrayError

__all__ = ["image_score"]

_NEGATIVE_ZERO_BITS = 0x8000
_INFINITY_BITS = 0x7C00
_VALUES = np.arange(_INFINITY_BITS, dtype=np.uint16).view(np.float16).astype(np.float64)


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
    num_largest = max(1, height * width // 10)
    # Bits of non-negative halves order like their values, so a histogram of them stands for the sorted pixels.
    native = np.ascontiguousarray(uncertainty_map, dtype=np.float16).view(np.uint16)
    sums = [_sum_of_largest(np.bincount(image.reshape(-1)), num_largest) for image in native]
    scores: npt.NDArray[np.float32] = (np.array(sums, dtype=np.float64) / num_largest).astype(np.float32)
    return scores


def _sum_of_largest(counts: npt.NDArray[np.intp], num_largest: int) -> float:
    """Sum of the largest values of a map, from the number of its pixels with each bit pattern up to the largest."""
    if counts[_INFINITY_BITS:_NEGATIVE_ZERO_BITS].any() or counts[_NEGATIVE_ZERO_BITS + 1 :].any():
        raise ArrayError(
            "uncertainty_map holds a negative or non-finite value, expected JS divergences of at least 0; "
            "discard the batch",
            field="uncertainty_map",
        )
    # Zeros, of which negative zero is one, add nothing and need not be counted.
    descending = counts[min(len(counts), _INFINITY_BITS) - 1 : 0 : -1]
    before = np.cumsum(descending) - descending
    taken = np.clip(num_largest - before, 0, descending)
    # Not a dot product: that is a library's, with threads of its own.
    return float((taken * _VALUES[len(descending) : 0 : -1]).sum())
