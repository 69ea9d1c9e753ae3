"""The line limit: callers who are refused without end fill no disk with lines of the log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

MOST_A_SECOND = 100


class LineLimit:
    """Says of which calls the log tells.

    Args:
        clock_s: Seconds of a clock that never goes back.

    Attributes:
        most: Calls of one kind that are told of in each second.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.most = MOST_A_SECOND
        self._clock_s = clock_s
        self._second = 0
        self._told = Counter[str]()
        self._left_out = Counter[str]()

    def admit(self, kind: str) -> int | None:
        """Note a call.

        Args:
            kind: One of few, such as the codes of gRPC.

        Returns:
            How many of its kind were left out since the last one that was told of; None if this one is left out too.
        """
        second = int(self._clock_s())
        if second != self._second:
            self._second = second
            self._told.clear()
        if self._told[kind] >= self.most:
            self._left_out[kind] += 1
            return None
        self._told[kind] += 1
        return self._left_out.pop(kind, 0)
