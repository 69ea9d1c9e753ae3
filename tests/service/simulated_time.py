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
LONGEST_S = 10_000.0
"""What asks again and again, and never has an end, ends then."""

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class StandstillError(AssertionError):
    """Somebody waits for something that nothing will bring about."""


class _NeverEndsError(BaseException):
    """Ends the work of a thread that does not end."""


class Clock:
    """Simulated time.

    Attributes:
        now_s: Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._in_thread_s: float | None = None

    def spend(self, seconds: float) -> None:
        """Say, in a thread, how long the work at hand takes; infinity if it never ends. Nothing else takes time."""
        if self._in_thread_s is None:
            return
        if seconds == math.inf:
            raise _NeverEndsError
        self._in_thread_s += seconds

    def work(self, begins_s: float, func: Callable[[], _T]) -> tuple[_T | None, Exception | None, float]:
        """Do the work of a thread, for which it is later and later.

        Returns:
            Its result, or its error, and when it ends; infinity if it does not.
        """
        self._in_thread_s = begins_s
        try:
            return func(), None, self._in_thread_s
        except _NeverEndsError:
            return None, None, math.inf
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the result
            return None, error, self._in_thread_s
        finally:
            self._in_thread_s = None

    def read(self) -> float:
        """Seconds since the beginning."""
        return self.now_s if self._in_thread_s is None else self._in_thread_s

    def read_ns(self) -> int:
        """Nanoseconds since the beginning."""
        return round(self.read() * NS)

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
        if self._clock.now_s > LONGEST_S:
            raise StandstillError(f"after {LONGEST_S:g} s something is still due, and it is not over")
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
        begins_s = max(self._clock.now_s, self._free_at_s.get(id(executor), 0.0))
        result, error, ends_s = self._clock.work(begins_s, lambda: func(*args))
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
