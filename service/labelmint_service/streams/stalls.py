"""Stalls: what only the caller of a stream can do, and does not for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self


class StallWatch:
    """Calls back when the stream has waited for its caller for too long; a context manager around such a wait.

    One timer serves many short waits: it is set again only when it has run out.

    Args:
        limit_s: Longest wait.
        on_stalled: Called when one is longer.
    """

    def __init__(self, limit_s: float, on_stalled: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._on_stalled = on_stalled
        self._since_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a wait is under way."""
        return self._since_s is not None

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """Begin a wait, or go on with the one under way."""
        if self._since_s is None:
            self._since_s = time.monotonic()
        if self._timer is None:
            self._set(self._limit_s)

    def end(self) -> None:
        """End the wait: the caller has done something."""
        self._since_s = None

    def close(self) -> None:
        """Watch no longer."""
        self.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._since_s is None:
            return
        left_s = self._since_s + self._limit_s - time.monotonic()
        if left_s > 0:
            self._set(left_s)
        else:
            self._on_stalled()
