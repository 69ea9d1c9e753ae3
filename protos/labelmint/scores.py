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
    num_images, height, width = uncertainty_map.shape
    num_pixels = height * width
    num_largest = max(1, num_pixels // 10)
    native = np.ascontiguousarray(uncertainty_map, dtype=np.float16)
    # Bits of non-negative halves order like their values and compare as integers, without a conversion.
    bits = native.view(np.uint16).reshape(num_images, num_pixels)
    bits = np.where(bits == _NEGATIVE_ZERO_BITS, np.uint16(0), bits)
    if bits.max(initial=0) >= _INFINITY_BITS:
        raise ArrayError(
            "uncertainty_map holds a negative or non-finite value, expected JS divergences of at least 0; "
            "discard the batch",
            field="uncertainty_map",
        )
    # kth is counted from the front: everything from there on is the largest tenth.
    ordered = np.partition(bits, num_pixels - num_largest, axis=1)
    largest = ordered[:, num_pixels - num_largest :].copy().view(np.float16)
    sums = largest.sum(axis=1, dtype=np.float64)
    scores: npt.NDArray[np.float32] = (sums / num_largest).astype(np.float32)
    return scores
