"""The scheduler: fills engine batches from all streams in turn and hands the results back.

A batch is filled one row at a time, as `turns` has it, going on where the last batch stopped, so that clients with work
get the same number of rows, to within one if all rows enter the engine at the same place. While the engine runs one
batch, the next one is filled and its latents are made. With several engines as many batches run at a time; whichever
ends first, a stream gets its rows in the order in which it handed them out.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Executor

from labelmint_service.engine import EngineInputs
from labelmint_service.errors import DrainingError, EngineLostError, StreamLimitError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.admission import Queue
from labelmint_service.scheduling.batches import BatchRunner
from labelmint_service.scheduling.engine_runner import EngineState
from labelmint_service.scheduling.replicas import Replicas
from labelmint_service.scheduling.rows import Rows
from labelmint_service.scheduling.turns import Turns
from labelmint_service.scheduling.work import Part, WorkStream
from labelmint_service.structured_logs import log_event
from labelmint_service.tracing.calls import Tracing

_log = logging.getLogger(__name__)


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
        self._batches = BatchRunner(model, replicas=replicas, queue=queue, metrics=metrics, tracing=tracing)
        self._streams: set[WorkStream] = set()
        self._turns = Turns[WorkStream]()
        self._forming: list[Part] = []
        self._running: dict[asyncio.Task[None], Sequence[Part]] = {}
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

    def _on_executed(self, task: asyncio.Task[None], parts: Sequence[Part]) -> None:
        del self._running[task]
        for part in parts:
            if self._latest.get(part.stream) is task:
                del self._latest[part.stream]
        self.wake()
        if not task.cancelled() and task.exception() is not None:
            log_event(_log, logging.ERROR, "scheduler.error", error=task.exception(), model=self._model.name)

    def _fill(self) -> None:
        """Add rows to the batch that is being formed, as turns have it."""
        num_formed = sum(len(part.indices) for part in self._forming)
        space = max(0, self._model.engine.batch_size - num_formed)  # the engine may have shrunk since
        entry = self._forming[0].entry if self._forming else None
        # In the order of turns, because streams of one client claim from the same allowance.
        ready = {stream: stream.num_ready(space) for stream in self._turns} if space else {}
        shares = self._turns.share(space, entry, ready)
        for stream, count in shares.items():
            entry = stream.entry
            rows = stream.take(count)
            loading = asyncio.get_running_loop().run_in_executor(self._pool, self._load, rows)
            part = Part(
                stream=stream,
                entry=entry,
                indices=rows.indices,
                waited_ns=self._queue.end_wait(stream),
                taken_ns=time.perf_counter_ns(),
                loading=loading,
            )
            self._forming.append(part)
        for stream, count in ready.items():
            if count > shares.get(stream, 0):
                stream.num_ready(0)  # what it claimed in vain is free for its client's streams of other models
        at_hand = [*self._forming, *(part for batch in self._running.values() for part in batch)]
        self._queue.note_ready(ready, {part.stream for part in at_hand})

    def _load(self, rows: Rows) -> EngineInputs:
        with self._metrics.stage_seconds.labels(self._model.name, "latents").time():
            return rows.load()

    async def _execute(self, parts: Sequence[Part], before: Collection[asyncio.Task[None]]) -> None:
        """Run one batch, to be delivered after those before, which have earlier rows of the same streams."""
        try:
            await self._batches.run(parts, functools.partial(self._wait_for, before))
        except EngineLostError as error:
            for stream in list(self._streams):
                stream.fail(error)

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
