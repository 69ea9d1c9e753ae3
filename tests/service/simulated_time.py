"""An event loop with simulated time, which passes only while everything waits; work of threads takes what it says."""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple
from unittest import mock

NS = 10**9

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class StandstillError(AssertionError):
    """Everything waits for something that nothing will bring about."""


class Clock:
    """Simulated time.

    Attributes:
        now_s: Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._spent_s = 0.0

    def spend(self, seconds: float) -> None:
        """Say, in a thread, how long the work at hand takes; infinity if it never ends."""
        self._spent_s += seconds

    def take_spent(self) -> float:
        """What was spent since this was called last."""
        spent_s, self._spent_s = self._spent_s, 0.0
        return spent_s

    def read(self) -> float:
        """Seconds since the beginning."""
        return self.now_s

    def read_ns(self) -> int:
        """Nanoseconds since the beginning."""
        return round(self.now_s * NS)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the process see this time."""
        with (
            mock.patch.object(time, "monotonic", self.read),
            mock.patch.object(time, "perf_counter_ns", self.read_ns),
        ):
            yield


class _Waiting(selectors.DefaultSelector):
    """Lets time pass instead of waiting for sockets."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StandstillError(f"at {self._clock.now_s:g} s everything waits and nothing is due")
        self._clock.now_s += max(0.0, timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Runs what goes to a thread at once, and hands its result over when the time that it spent has passed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_at_s: dict[int, float] = {}  # a thread does one thing at a time
        super().__init__(_Waiting(clock))

    def time(self) -> float:
        return self._clock.read()

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        future = self.create_future()
        self._clock.take_spent()
        try:
            result, error = func(*args), None
        except Exception as caught:  # noqa: BLE001 - it belongs to whoever waits for the result
            result, error = None, caught
        begins_s = max(self._clock.now_s, self._free_at_s.get(id(executor), 0.0))
        ends_s = begins_s + self._clock.take_spent()
        self._free_at_s[id(executor)] = ends_s

        def finish() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        if math.isfinite(ends_s):
            self.call_at(ends_s, finish)
        return future


def simulate(clock: Clock, main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in simulated time.

    Raises:
        StandstillError: It would wait for ever.
    """
    with clock.shown(), asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        return runner.run(main)
