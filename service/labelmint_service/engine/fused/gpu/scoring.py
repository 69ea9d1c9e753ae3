"""The image score from how often each divergence occurs, exactly as `labelmint.scores.image_score` has it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelmint_service.engine.fused.gpu.plan import NUM_BINS

# Of the float16 numbers from zero up, by their bits.
_VALUES = np.arange(NUM_BINS, dtype=np.uint16).view(np.float16).astype(np.float64)


def score_counts(counts: npt.NDArray[np.int32], num_pixels: int) -> npt.NDArray[np.float32]:
    """Mean of the floor(num_pixels / 10) largest values (at least one).

    Sums are exact: float16 values are multiples of 2^-24, and float64 holds them up to 2^29 nats.

    Args:
        counts: int32 [N, bins]: pixels whose divergence has these bits; zeros need not be counted.
        num_pixels: Of a picture.

    Returns:
        float32 [N], nats.
    """
    wanted = max(1, num_pixels // 10)
    from_above = np.cumsum(counts[:, ::-1], axis=1, dtype=np.int64)
    taken = np.diff(np.minimum(from_above, wanted), axis=1, prepend=0)[:, ::-1]  # [N, bins]
    scores: npt.NDArray[np.float32] = ((taken * _VALUES).sum(axis=1) / wanted).astype(np.float32)
    return scores
