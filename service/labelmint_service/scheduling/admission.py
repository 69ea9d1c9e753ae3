"""Admission: who waits for a turn of an engine, for how long, and whether one more may.

A stream waits when its reader is ready for rows and it has none in the batches at hand. What a new stream would wait
follows from who is before it, as `turns` has it, and from how long the last batches took.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from labelmint_service.errors import LateError, QueueFullError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.scheduling.turns import LOWER_EVERY, Waiting

_NUM_BATCHES = 16
"""Batches by which the speed is judged."""
_DOUBT = 0.5
"""Part of the time that a first sample takes at best for which a call may ask and still be let in."""
_GUESS_S = 1.0
"""Retry hint before the first batch."""


class Entrant(Waiting, Protocol):
    """What may have to wait."""

    @property
    def deadline_s(self) -> float | None:
        """Time of time.monotonic() at which nobody waits for it any more; None for never."""
        ...


_StreamT = TypeVar("_StreamT", bound=Entrant)


@dataclass(slots=True, kw_only=True)
class WaitingRoom:
    """What all models of a server share.

    Attributes:
        max_streams: Streams that may wait, of all models together.
        num_streams: Streams that wait.
    """

    max_streams: int
    num_streams: int = 0


class Queue(Generic[_StreamT]):
    """The streams that wait for the engine of one version of a model, or for one of several that share the work.

    Versions do not share one: they have engines of their own, so that who waits for one is not before the other's.

    Args:
        model: Name of the model.
        room: What all models share.
        max_wait_s: Longest time that a new stream may have to wait for its first sample.
        metrics: Where to count.
    """

    def __init__(self, model: str, room: WaitingRoom, max_wait_s: float, metrics: ServiceMetrics) -> None:
        self._model = model
        self._room = room
        self._max_wait_s = max_wait_s
        self._refused = metrics.streams_refused
        self._num_waiting = metrics.waiting_streams.labels(model)
        self._turn_wait = metrics.turn_wait_seconds.labels(model)
        self._since_ns: dict[_StreamT, int] = {}
        self._batch_s: deque[float] = deque(maxlen=_NUM_BATCHES)
        self._counted = 0  # in the room

    def admit(self, stream: _StreamT, *, rows_taken: int, rows_at_once: int) -> None:
        """Let a stream wait, if the engine is at work, or say why not. A free engine lets everybody in.

        Args:
            stream: The new one.
            rows_taken: Rows of others at the engine and in the next batch; 0 if the engine is free.
            rows_at_once: Rows of a batch, times the engines that there are.

        Raises:
            LateError: Its deadline passes before its first sample can be there.
            QueueFullError: So many wait, or it would have to for so long, that it may not.
        """
        if not rows_taken:
            return
        if self._batch_s and stream.deadline_s is not None:
            # No better can be had: what is at the engine ends now, and all are as fast as the fastest one was.
            ahead = self._rows_ahead(stream, at_most=False) + max(0, rows_taken - rows_at_once)
            soonest_s = (1 + ahead // rows_at_once) * min(self._batch_s)
            self._check_deadline(stream.deadline_s - time.monotonic(), soonest_s)
        batch_s = sum(self._batch_s) / len(self._batch_s) if self._batch_s else 0.0
        num_elsewhere = sum(other.entry is not stream.entry for other in self._since_ns)
        rows = self._rows_ahead(stream, at_most=True) + rows_taken + num_elsewhere
        if num_elsewhere:
            rows += rows_at_once  # batches of two kinds, of each of which the last one may not be full
        wait_s = rows / rows_at_once * batch_s
        self._check_wait(wait_s, batch_s)
        self._since_ns[stream] = time.perf_counter_ns()
        self._count()

    def _check_deadline(self, left_s: float, soonest_s: float) -> None:
        if left_s < soonest_s * _DOUBT:
            self._refused.labels(self._model, "deadline").inc()
            raise LateError(
                f"the deadline is in {left_s:.2f} s, but {self._room_text()} and the first sample would come after "
                f"{soonest_s:.2f} s at best; allow more time, or ask when fewer do",
            )

    def _check_wait(self, wait_s: float, batch_s: float) -> None:
        """Check what a new stream would have to wait; 0 while nobody knows how fast the engine is."""
        if self._room.num_streams >= self._room.max_streams:
            self._refused.labels(self._model, "max_waiting_streams").inc()
            raise QueueFullError(
                f"{self._room.num_streams} streams of all models wait for their turn, expected fewer than "
                f"{self._room.max_streams}; retry in {wait_s or _GUESS_S:.1f} s, or ask the operator for more servers",
                retry_after_s=wait_s or _GUESS_S,
            )
        if wait_s > self._max_wait_s:
            self._refused.labels(self._model, "max_wait_s").inc()
            retry_s = max(wait_s - self._max_wait_s, batch_s)
            raise QueueFullError(
                f"{self._room_text()} and the first sample would come after {wait_s:.1f} s, expected at most "
                f"{self._max_wait_s:g} s; retry in {retry_s:.1f} s, or ask the operator for more servers",
                retry_after_s=retry_s,
            )

    def end_wait(self, stream: _StreamT) -> int:
        """Note that it is a stream's turn.

        Returns:
            How long it has waited for it, nanoseconds.
        """
        now_ns = time.perf_counter_ns()
        waited_ns = now_ns - self._since_ns.pop(stream, now_ns)
        self._turn_wait.observe(waited_ns / 1e9)
        return waited_ns

    def note_ready(self, ready: Mapping[_StreamT, int], served: Collection[_StreamT]) -> None:
        """Note who waits after a batch was filled.

        Args:
            ready: Rows that each stream had for it.
            served: Streams that have rows in it or at the engine.
        """
        now_ns = time.perf_counter_ns()
        for stream, count in ready.items():
            if not count:
                self._since_ns.pop(stream, None)
            elif stream not in served:
                self._since_ns.setdefault(stream, now_ns)
        self._count()

    def leave(self, stream: _StreamT) -> None:
        """Note that a stream is gone."""
        if self._since_ns.pop(stream, None) is not None:
            self._count()

    def note_batch(self, duration_ns: int) -> None:
        """Note how long the engine took."""
        self._batch_s.append(duration_ns / 1e9)

    def _rows_ahead(self, stream: _StreamT, *, at_most: bool) -> int:
        """Rows that those who wait at its entry get before the first one of a new stream, if each has one.

        Args:
            stream: The new one.
            at_most: Whether its client is the last to have a turn, or the first; anonymous ones always are the last.
        """
        waiting = [other for other in self._since_ns if other.entry is stream.entry]
        clients = Counter[object](other.client or other for other in waiting if other.priority == stream.priority)
        own = clients.pop(stream.client, 0) if stream.client else 0
        rounds = own + 1 if at_most or not stream.client else own
        # Who wants rows at the other entry too passes every second turn.
        elsewhere = {other.client for other in self._since_ns if other.entry is not stream.entry}
        ahead = own + sum(
            min(count, rounds if at_most or client not in elsewhere else rounds // 2)
            for client, count in clients.items()
        )
        higher = sum(1 for other in waiting if other.priority > stream.priority)
        return ahead + min(higher, (LOWER_EVERY - 1) * (ahead + at_most))

    def _room_text(self) -> str:
        count = len(self._since_ns)
        return f"{count} streams of model {self._model!r} wait for their turn" if count else "the engine is at work"

    def _count(self) -> None:
        count = len(self._since_ns)
        self._room.num_streams += count - self._counted
        self._num_waiting.inc(count - self._counted)  # versions of a model share the metric
        self._counted = count
