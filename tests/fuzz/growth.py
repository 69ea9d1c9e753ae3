"""Memory of a server under hostile input: it may grow at first, and then comes to rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_GROWTH_BYTES = 16 * 2**20


def check_memory_comes_to_rest(memory: Sequence[int]) -> None:
    """Check the slope of the second half of evenly spaced measurements, bytes; fewer than four say nothing."""
    times = np.linspace(0.0, 1.0, len(memory))
    late = times >= 0.5
    if late.sum() >= 4:
        growth = float(np.polyfit(times[late], np.array(memory)[late], 1)[0]) / 2
        assert growth < MOST_GROWTH_BYTES, f"the server grew by {growth / 2**20:.1f} MiB: {memory}"
