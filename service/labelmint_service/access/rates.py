"""Rates: a token bucket in whole numbers, so that no rounding ever gives more than the rate."""

from __future__ import annotations

_NS = 10**9
_MICRO = 10**6
_SAMPLE = _NS * _MICRO
"""Level of one sample: nanoseconds times millionths of a sample a second."""


class RateBucket:
    """Samples a second. Over any window of T seconds at most rate * T + burst samples are spent.

    Args:
        rate: Samples a second, at least 0.001.
        now_ns: Time of a clock that never goes back.

    Attributes:
        burst: Samples that may be spent at once after a pause: those of one second, at least one.
        quantum: Samples worth waiting for, those of a tenth of a second: a batch a sample would waste the engine.
    """

    def __init__(self, rate: float, now_ns: int) -> None:
        self._filled_ns = now_ns
        self._set(rate)
        self._level = self.burst * _SAMPLE

    def set_rate(self, rate: float, now_ns: int) -> None:
        """Go on with another rate; what has been saved stays, as far as it fits."""
        self._fill(now_ns)
        self._set(rate)
        self._level = min(self._level, self.burst * _SAMPLE)

    def _set(self, rate: float) -> None:
        self._rate = int(rate * _MICRO)
        self.burst = max(1, self._rate // _MICRO)
        self.quantum = max(1, self.burst // 10)

    def available(self, now_ns: int) -> int:
        """Samples that may be spent now."""
        self._fill(now_ns)
        return self._level // _SAMPLE

    def spend(self, count: int, now_ns: int) -> None:
        """Spend samples.

        Args:
            count: At most what is available.
            now_ns: Time.
        """
        self._fill(now_ns)
        self._level -= count * _SAMPLE
        assert self._level >= 0, "more samples were spent than there were"

    def wait_s(self, count: int, now_ns: int) -> float:
        """Seconds until so many samples, at most the burst, are available."""
        self._fill(now_ns)
        missing = min(count, self.burst) * _SAMPLE - self._level
        return max(0, -(-missing // self._rate)) / _NS

    def _fill(self, now_ns: int) -> None:
        passed_ns = max(0, now_ns - self._filled_ns)
        self._level = min(self.burst * _SAMPLE, self._level + passed_ns * self._rate)
        self._filled_ns += passed_ns
