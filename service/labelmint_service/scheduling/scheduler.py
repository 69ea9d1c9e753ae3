"""The scheduler: fills engine batches from all streams in turn and hands the results back.

A batch is filled one row at a time, as `turns` has it, going on where the last batch stopped, so that streams with work
get the same number of rows to within one. While the engine runs one batch, the next one is filled and
its latents are made; just before it is computed, rows whose caller has gone or is late are dropped. With several
engines as many batches run at a time; whichever ends first, a stream gets its rows in the order in which it handed them
out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from labelmint_service.engine import EngineBatch
from labelmint_service.errors import (
    DrainingError,
    EngineLostError,
    EngineRunError,
    LateError,
    NonFiniteSampleError,
    ServiceError,
    StreamLimitError,
)
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.admission import Queue
from labelmint_service.scheduling.engine_runner import EngineState
from labelmint_service.scheduling.replicas import Replicas
from labelmint_service.scheduling.rows import Delivery, Entry, LoadedRows, Rows, join_inputs, slice_outputs
from labelmint_service.scheduling.turns import Turns
from labelmint_service.structured_logs import add_log_context, log_event
from labelmint_service.tracing.calls import CallTrace, Tracing

_log = logging.getLogger(__name__)


class WorkStream(Protocol):
    """What the scheduler needs of a stream.

    Attributes:
        request_id: For the log.
        trace: What is told of its call.
        client: Name of the client; empty if clients are not told apart.
        priority: Larger goes first.
        is_closed: Whether nobody waits for its rows any more.
    """

    request_id: str
    trace: CallTrace
    client: str
    priority: int
    is_closed: bool

    @property
    def entry(self) -> Entry:
        """Where its next rows enter the engine."""
        ...

    @property
    def deadline_s(self) -> float | None:
        """Time of time.monotonic() at which nobody waits for it any more; None for never."""
        ...

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        ...

    def num_ready(self, most: int) -> int:
        """Rows it wants computed now, at most `most`."""
        ...

    def take(self, count: int) -> Rows:
        """Hand out the next rows."""
        ...

    def deliver(self, delivery: Delivery) -> None:
        """Receive computed rows, in the order in which they were handed out."""
        ...

    def fail(self, error: Exception) -> None:
        """End after what was delivered; rows still on their way never come."""
        ...

    def drain(self) -> None:
        """End after what was handed out; nothing more will be taken."""
        ...


@dataclass(slots=True)
class _Part:
    """Rows of one stream in one batch."""

    stream: WorkStream
    entry: Entry
    indices: tuple[int, ...]
    waited_ns: int
    taken_ns: int
    loading: asyncio.Future[LoadedRows]


@dataclass(slots=True)
class _Loaded:
    """Rows of one stream, ready for the engine."""

    stream: WorkStream
    indices: tuple[int, ...]
    waited_ns: int
    taken_ns: int
    rows: LoadedRows

    def head(self, count: int) -> _Loaded:
        return _Loaded(self.stream, self.indices[:count], self.waited_ns, self.taken_ns, self.rows.part(0, count))


class Scheduler:
    """Runs the batches of one model.

    Args:
        model: What runs.
        pool: Threads that make latents.
        replicas: What runs them.
        metrics: Where to count.
        max_streams: Streams at a time.
        queue: Who waits for a turn.
        tracing: Where traces go.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        pool: Executor,
        replicas: Replicas,
        metrics: ServiceMetrics,
        max_streams: int,
        queue: Queue[WorkStream],
        tracing: Tracing,
    ) -> None:
        self._model = model
        self._pool = pool
        self._metrics = metrics
        self._max_streams = max_streams
        self._replicas = replicas
        self._queue = queue
        self._tracing = tracing
        self._streams: set[WorkStream] = set()
        self._turns = Turns[WorkStream]()
        self._forming: list[_Part] = []
        self._running: dict[asyncio.Task[None], Sequence[_Part]] = {}
        self._held_back: set[asyncio.Task[None]] = set()  # of these, computed and waiting for an earlier one's delivery
        self._latest: dict[WorkStream, asyncio.Task[None]] = {}  # the running batch with a stream's last rows
        self._changed = asyncio.Event()
        self._is_draining = False
        self._is_retiring = False
        self._left = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def is_lost(self) -> bool:
        """Whether a run of the engine does not end."""
        return self._replicas.state is EngineState.LOST

    @property
    def num_streams(self) -> int:
        """Streams in work."""
        return len(self._streams)

    def start(self) -> None:
        """Begin to run batches on the running event loop."""
        self._loop_task = asyncio.get_running_loop().create_task(self._run())

    def add(self, stream: WorkStream) -> None:
        """Serve a stream from now on.

        Raises:
            DrainingError: The server, or the version of the model, is going away.
            StreamLimitError: There are as many streams as there may be.
            QueueFullError: Too many wait for their turn.
            LateError: Its deadline passes before its turn can come.
        """
        if self._is_draining or self._is_retiring:
            what = "server" if self._is_draining else f"version that was asked for of model {self._model.name!r}"
            raise DrainingError(f"the {what} is going away; ask again, here or at another server")
        if len(self._streams) >= self._max_streams:
            self._metrics.streams_refused.labels(self._model.name, "max_streams").inc()
            raise StreamLimitError(
                f"{len(self._streams)} streams of model {self._model.name!r} are in work, expected fewer than "
                f"{self._max_streams}; retry when one has ended, or ask the operator to raise max_streams",
            )
        rows_at_once = self._model.engine.batch_size * self._replicas.num_usable
        self._queue.admit(stream, rows_taken=self._num_rows_taken(), rows_at_once=rows_at_once)
        self._streams.add(stream)
        self._turns.add(stream)
        self._metrics.active_streams.labels(self._model.name).inc()
        self.wake()

    def remove(self, stream: WorkStream) -> None:
        """Serve a stream no longer; its rows in work are dropped."""
        if stream in self._streams:
            self._streams.remove(stream)
            self._turns.remove(stream)
            self._queue.leave(stream)
            self._metrics.active_streams.labels(self._model.name).dec()
            self._left.set()
            self.wake()

    def wake(self) -> None:
        """Look again for rows to compute; call it when a stream may have become ready."""
        self._changed.set()

    async def retire(self, limit_s: float) -> None:
        """Take no new streams and wait for those in work to end; drain what has not ended in time.

        Args:
            limit_s: Time that they get.
        """
        self._is_retiring = True
        try:
            async with asyncio.timeout(limit_s):
                while self._streams:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            log_event(_log, logging.WARNING, "scheduler.retired", model=self._model.name, streams=len(self._streams))
        await self.drain()

    async def drain(self) -> None:
        """Take no more rows; finish the batches in work and tell all streams to end with a resume point."""
        self._is_draining = True
        self.wake()
        if self._loop_task is not None:
            await asyncio.wait({self._loop_task})  # unlike awaiting it, being cancelled here does not cancel it
        for stream in list(self._streams):
            stream.drain()

    async def close(self) -> None:
        """Drain, then end the threads. The engines stay open."""
        await self.drain()
        await self._replicas.close()

    async def _run(self) -> None:
        while not (self._is_draining and not self._running and not self._forming):
            self._changed.clear()
            try:
                self._step()
            except Exception as error:  # noqa: BLE001 - a defect of ours must not stop the server
                log_event(_log, logging.ERROR, "scheduler.error", error=error, model=self._model.name)
                for stream in list(self._streams):
                    stream.fail(error)
            if self._changed.is_set() or (self._is_draining and not self._running):
                continue
            await self._changed.wait()

    def _step(self) -> None:
        """Fill the batch that is being formed, and run it if an engine is free."""
        self._drop_closed()
        if not self._is_draining:
            self._fill()
        if self._forming and self._is_engine_free:
            parts, self._forming = self._forming, []
            before = {self._latest[part.stream] for part in parts if part.stream in self._latest}
            task = asyncio.get_running_loop().create_task(self._execute(parts, before))
            self._latest.update((part.stream, task) for part in parts)
            self._running[task] = parts
            task.add_done_callback(lambda done: self._on_executed(done, parts))
            self.wake()

    @property
    def _is_engine_free(self) -> bool:
        return len(self._running) - len(self._held_back) < self._replicas.num_usable

    def _num_rows_taken(self) -> int:
        """Rows that are before those of a new stream whoever is next: at engines and in the next batch."""
        if self._is_engine_free:
            return 0
        at_engines = [parts for task, parts in self._running.items() if task not in self._held_back]
        return sum(len(part.indices) for parts in (*at_engines, self._forming) for part in parts)

    def _drop_closed(self) -> None:
        """Make room for others where a caller has gone."""
        closed = [part for part in self._forming if part.stream.is_closed]
        if closed:
            self._forming = [part for part in self._forming if not part.stream.is_closed]
            self._metrics.rows_dropped.labels(self._model.name).inc(sum(len(part.indices) for part in closed))

    def _on_executed(self, task: asyncio.Task[None], parts: Sequence[_Part]) -> None:
        del self._running[task]
        for part in parts:
            if self._latest.get(part.stream) is task:
                del self._latest[part.stream]
        self.wake()
        if not task.cancelled() and task.exception() is not None:
            log_event(_log, logging.ERROR, "scheduler.error", error=task.exception(), model=self._model.name)

    def _fill(self) -> None:
        """Add rows to the batch that is being formed, as turns have it."""
        space = self._model.engine.batch_size - sum(len(part.indices) for part in self._forming)
        entry = self._forming[0].entry if self._forming else None
        # In the order of turns, because streams of one client claim from the same allowance.
        ready = {stream: stream.num_ready(space) for stream in self._turns} if space else {}
        for stream, count in self._turns.share(space, entry, ready).items():
            entry = stream.entry
            rows = stream.take(count)
            loading = asyncio.get_running_loop().run_in_executor(self._pool, self._load, rows)
            waited_ns = self._queue.end_wait(stream)
            self._forming.append(_Part(stream, entry, rows.indices, waited_ns, time.perf_counter_ns(), loading))
        at_hand = [*self._forming, *(part for batch in self._running.values() for part in batch)]
        self._queue.note_ready(ready, {part.stream for part in at_hand})

    def _load(self, rows: Rows) -> LoadedRows:
        with self._metrics.stage_seconds.labels(self._model.name, "latents").time():
            return rows.load()

    async def _execute(self, parts: Sequence[_Part], before: Collection[asyncio.Task[None]]) -> None:
        """Run one batch and deliver it; whatever happens, every stream in it learns how it ended.

        Args:
            parts: What it is made of.
            before: Batches with earlier rows of the same streams, which have to be delivered first.
        """
        try:
            loaded = [
                _Loaded(part.stream, part.indices, part.waited_ns, part.taken_ns, rows)
                for part, rows in zip(parts, await asyncio.gather(*(part.loading for part in parts)), strict=True)
            ]
            wanted = [part for part in loaded if self._is_wanted(part)]
            if wanted:
                await self._compute(wanted, before)
        except Exception as error:
            for part in parts:
                part.stream.fail(error)
            raise

    def _is_wanted(self, part: _Loaded) -> bool:
        """Whether somebody still waits for the rows; tells a late stream that it is."""
        stream = part.stream
        if not stream.is_closed and not stream.is_late:
            return True
        self._metrics.rows_dropped.labels(self._model.name).inc(len(part.indices))
        if not stream.is_closed:
            stream.fail(LateError("the deadline passed before the work was done; allow more time or ask for less"))
        return False

    async def _compute(self, parts: Sequence[_Loaded], before: Collection[asyncio.Task[None]] = ()) -> None:
        """Run rows and deliver them. After a failure each stream is tried alone, so that one cannot fail another."""
        model = self._model.name
        num_rows = sum(len(part.indices) for part in parts)
        self._metrics.batch_fill.labels(model).observe(num_rows / self._model.engine.batch_size)
        inputs = join_inputs([part.rows.inputs for part in parts])
        began_ns = time.perf_counter_ns()
        try:
            # The task of a batch has a context of its own.
            add_log_context(request_ids=",".join(dict.fromkeys(part.stream.request_id for part in parts)))
            outputs, stages_ns = await self._replicas.run(inputs)
        except EngineRunError as error:
            self._tracing.add_batch(model, parts, began_ns, time.perf_counter_ns(), {}, error)
            await self._wait_for(before)
            await self._after_failure(parts, error)
            return
        except EngineLostError as error:
            self._tracing.add_batch(model, parts, began_ns, time.perf_counter_ns(), {}, error)
            for stream in list(self._streams):
                stream.fail(error)
            return
        ended_ns = time.perf_counter_ns()
        compute_ns = ended_ns - began_ns
        self._queue.note_batch(compute_ns)
        self._tracing.add_batch(model, parts, began_ns, ended_ns, stages_ns)
        self._metrics.stage_seconds.labels(model, "compute").observe(compute_ns / 1e9)
        await self._wait_for(before)
        if not outputs.finite.all():
            self._metrics.engine_errors.labels(model, "non_finite").inc()
            await self._without_non_finite(parts, outputs.finite)
            return
        self._deliver(parts, outputs, began_ns, compute_ns)

    async def _wait_for(self, before: Collection[asyncio.Task[None]]) -> None:
        """Wait until earlier batches are delivered, however they ended; meanwhile the engine is there for others."""
        pending = [task for task in before if not task.done()]
        this = asyncio.current_task()
        if pending and this is not None:
            self._held_back.add(this)
            self.wake()
            try:
                await asyncio.wait(pending)
            finally:
                self._held_back.discard(this)

    async def _after_failure(self, parts: Sequence[_Loaded], error: EngineRunError) -> None:
        streams = list(dict.fromkeys(part.stream for part in parts))
        if len(streams) == 1:
            streams[0].fail(error)
            return
        for stream in streams:
            await self._compute([part for part in parts if part.stream is stream])

    async def _without_non_finite(self, parts: Sequence[_Loaded], finite: npt.NDArray[np.bool_]) -> None:
        """Discard a batch, compute again what stands before each stream's first bad row, and end those streams."""
        errors: dict[WorkStream, ServiceError] = {}
        kept: list[_Loaded] = []
        first = 0
        for part in parts:
            verdicts = finite[first : first + len(part.indices)]
            first += len(part.indices)
            if part.stream in errors:
                continue
            num_good = len(verdicts) if verdicts.all() else int(np.argmin(verdicts))
            if num_good:
                kept.append(part.head(num_good))
            if num_good < len(verdicts):
                errors[part.stream] = _non_finite(part.indices[num_good])
        if kept:
            await self._compute(kept)
        for stream, error in errors.items():
            stream.fail(error)

    def _deliver(self, parts: Sequence[_Loaded], outputs: EngineBatch, began_ns: int, compute_ns: int) -> None:
        first = 0
        for part in parts:
            last = first + len(part.indices)
            queue_ns = began_ns - part.taken_ns
            histogram = self._metrics.stage_seconds.labels(self._model.name, "queue")
            histogram.observe(queue_ns / 1e9, part.stream.trace.exemplar)
            part.stream.deliver(
                Delivery(
                    indices=part.indices,
                    loaded=part.rows,
                    outputs=slice_outputs(outputs, first, last),
                    waited_ns=part.waited_ns,
                    queue_ns=queue_ns,
                    compute_ns=compute_ns,
                ),
            )
            first = last


def _non_finite(index: int) -> NonFiniteSampleError:
    return NonFiniteSampleError(
        f"sample {index} has a non-finite image, logit or heatmap; it was not sent, start after it to leave it out",
        next_index=index + 1,
    )
