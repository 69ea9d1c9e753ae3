"""Statistics of durations and ratios."""

import statistics
from collections.abc import Sequence

import numpy as np


def summarize_durations(durations_ns: Sequence[int]) -> dict[str, float | int]:
    """p50, p90, p99, smallest and largest in milliseconds, and how many there were.

    Args:
        durations_ns: At least one.
    """
    milliseconds = np.asarray(durations_ns, dtype=np.float64) / 1e6
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(milliseconds, (50, 90, 99)))
    low, high = round(float(milliseconds.min()), 4), round(float(milliseconds.max()), 4)
    return {"p50": p50, "p90": p90, "p99": p99, "min": low, "max": high, "n": len(milliseconds)}


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
