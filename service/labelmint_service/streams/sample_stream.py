"""A stream: rows go out to the scheduler, results come back, are judged, encoded and queued as messages for the caller.

    source -> scheduler -> arrivals -> assembler (worker threads) -> outbox -> caller

Credit bounds all of it: a row holds one unit from the moment it is handed out until the caller has taken its message or
a filter has rejected it. A caller that stops reading stops its own work and nothing else.

A stream whose caller stalls, or may not call any longer, gives its place to others at once. gRPC takes no status while
a message waits for the caller's window, so that he learns of it when he has taken that message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from labelmint.addresses import NUM_INDICES
from labelmint.v1 import service_pb2
from labelmint_service.errors import (
    DrainingError,
    QuotaError,
    ScanLimitError,
    ServiceError,
    StalledError,
    UnauthenticatedError,
)
from labelmint_service.messages.assembly import Assembler
from labelmint_service.messages.batching import Reply
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.requests.parsing import StreamJob
from labelmint_service.scheduling.rows import Delivery, Entry, Rows
from labelmint_service.scheduling.scheduler import Scheduler
from labelmint_service.streams.account import StreamAccount
from labelmint_service.streams.call import StreamCall
from labelmint_service.streams.outbox import Outbox
from labelmint_service.streams.sources import RowSource
from labelmint_service.streams.stalls import StallWatch
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)


class SampleStream:
    """One Generate or Label call in work; an async context manager that serves it while it is open.

    Args:
        call: What it is for.
        job: What is asked for.
        source: Where rows come from.
        assembler: What turns results into messages.
        credit_rows: Rows in work or waiting for the caller, at most.
        progress_interval_s: Time between messages without samples; None for none of these.
        stall_limit_s: Time that the caller may leave the stream waiting for him.
        scheduler: What computes rows.
        metrics: Where to count.

    Attributes:
        request_id: For the log.
        trace: What is told of the call.
        deadline_s: Time of time.monotonic() at which the caller gives up; None for never.
        is_closed: Whether nobody waits for rows any more.
        client: Name of the client it is for; empty if clients are not told apart.
        priority: That of the client; larger goes first.
    """

    def __init__(
        self,
        call: StreamCall,
        job: StreamJob,
        *,
        source: RowSource,
        assembler: Assembler,
        credit_rows: int,
        progress_interval_s: float | None,
        stall_limit_s: float,
        scheduler: Scheduler,
        metrics: ServiceMetrics,
    ) -> None:
        self.request_id = call.request_id
        self.trace = call.trace
        self.deadline_s = call.deadline_s
        self.is_closed = False
        self._allowance = call.caller.make_allowance()
        self.client = self._allowance.client
        self.priority = self._allowance.priority
        self._job = job
        self._source = source
        self._assembler = assembler
        self._credit_rows = credit_rows
        self._scheduler = scheduler
        self._account = StreamAccount(job.model.name, metrics, call.trace)
        self._arrivals: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._outbox = Outbox(job.model, progress_interval_s)
        self._handed: Reply | None = None  # the last one
        self._stall_limit_s = stall_limit_s
        self._reading = StallWatch(stall_limit_s, lambda: self._stall("no message was taken"))
        self._releasing = StallWatch(stall_limit_s, lambda: self._stall("shared memory was not read"))
        self._sending = StallWatch(stall_limit_s, lambda: self._stall("no latents came"))
        self._failure: Exception | None = None
        self._ending: ServiceError | None = None  # why it ended before all was handed over
        self._is_draining = False
        self._pending_rows = 0  # handed out and not yet judged
        self._first_index = source.next_index
        self._next_index = source.next_index
        self._num_accepted = 0
        self._pump_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Ask the scheduler for work.

        Raises:
            DrainingError: The server is going away.
            StreamLimitError: There are as many streams as there may be.
            QueueFullError: Too many wait for their turn.
            LateError: The deadline passes before the first sample can be there.
            ServiceError: The client may have no more, or nothing more today.
        """
        try:
            self._allowance.open(self._notice_allowance)
            self._scheduler.add(self)
        except ServiceError as error:
            self._allowance.close()
            error.next_index = self._next_index
            if isinstance(error, QuotaError):
                self._account.refuse(error.limit)
            self._assembler.close()
            raise
        self._pump_task = asyncio.get_running_loop().create_task(self._pump())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop all work, also if the caller leaves while this waits."""
        self._account.end(num_accepted=self._num_accepted, next_index=self._next_index)
        self._free_place()
        try:
            if self._pump_task is not None:
                self._pump_task.cancel()
                await asyncio.gather(self._pump_task, return_exceptions=True)
        finally:
            self._assembler.close()

    # What the scheduler calls; see scheduling.work.WorkStream.

    @property
    def entry(self) -> Entry:
        """Where the next rows enter the engine."""
        return self._source.entry

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline_s is not None and time.monotonic() > self.deadline_s

    def num_ready(self, most: int) -> int:
        """Rows that may be computed now, at most `most`."""
        if self.is_closed or self._is_draining or self._failure is not None or self._has_enough:
            return self._allowance.num_ready(0)
        credit = self._credit_rows - self._account.held_rows
        return self._allowance.num_ready(self._source.num_ready(min(most, credit)))

    def take(self, count: int) -> Rows:
        """Hand out rows."""
        self._allowance.take(count)
        self._account.hold(count)
        self._pending_rows += count
        return self._source.take(count)

    def deliver(self, delivery: Delivery) -> None:
        """Receive computed rows; after a failure there is a gap before them, so they are not for sending."""
        if self._failure is None:
            self._arrivals.append(delivery)
            self._arrived.set()

    def fail(self, error: Exception) -> None:
        """End with an error after what was delivered."""
        if self._failure is None:
            self._failure = error
            self._arrived.set()

    def drain(self) -> None:
        """End with a resume point after what was handed out."""
        self._is_draining = True
        self._arrived.set()

    # What the source and the allowance call.

    def notice_latents(self) -> None:
        """Look at the source again: the caller has sent rows, or their end."""
        self._sending.end()
        self._wake()

    def _notice_allowance(self) -> None:
        """Look at the allowance again: it changed, or time passed. Later: the scheduler may be filling a batch."""
        self._wake()
        asyncio.get_running_loop().call_soon(self._end_if_barred)

    def _wake(self) -> None:
        self._scheduler.wake()
        self._arrived.set()

    def _end_if_barred(self) -> None:
        error = self._allowance.refusal()
        if isinstance(error, UnauthenticatedError):
            self._abandon(error)

    def _stall(self, what: str) -> None:
        self._abandon(
            StalledError(
                f"{what} for {self._stall_limit_s:g} s, so that the place of the stream was given to others; go on at "
                "next_index, or ask the operator to raise stall_limit_s"
            )
        )

    def _abandon(self, error: ServiceError) -> None:
        """End at once and drop what was not handed over; the caller learns of it once he has taken what was."""
        if self.is_closed:
            return
        is_told_late = self._reading.is_waiting
        self._free_place()
        if self._pump_task is None or (self._pump_task.done() and self._outbox.is_empty):
            return  # it has ended by itself
        self._pump_task.cancel()
        self._account.drop()
        self._outbox.clear()
        error.next_index = self._handed_index
        self._ending = error
        if is_told_late:
            log_event(_log, logging.WARNING, "stream.abandoned", request_id=self.request_id, message=str(error))

    def _free_place(self) -> None:
        """Take no place of the model or the client any more; once is enough."""
        self.is_closed = True
        for watch in (self._reading, self._releasing, self._sending):
            watch.close()
        self._scheduler.remove(self)
        self._allowance.close()

    @property
    def _handed_index(self) -> int:
        """Where to go on after what was handed over."""
        if self._handed is None:
            return self._first_index
        message = service_pb2.SampleBatch.FromString(self._handed.data)
        return NUM_INDICES if message.exhausted else message.next_index

    # What the servicer calls.

    async def messages(self) -> AsyncIterator[bytes]:
        """The messages of the stream, serialised SampleBatches in index order.

        Asking for the next one says that the caller has taken the last.

        Raises:
            ServiceError: The stream ended before its limit; next_index says where to take it up again.
        """
        assert self._pump_task is not None, "enter the stream first"
        while True:
            self._outbox.changed.clear()
            while self._ending is None and (reply := self._outbox.take()) is not None:
                self._handed = reply
                self._account.begin_send(reply)
                with self._reading:
                    yield reply.data
                self._account.end_send(reply)
                self._wake()
            if self._ending is not None:
                raise self._ending
            if self._pump_task.done():
                self._pump_task.result()
                return
            await self._outbox.changed.wait()

    @property
    def _has_enough(self) -> bool:
        return self._job.max_accepted is not None and self._num_accepted >= self._job.max_accepted

    async def _pump(self) -> None:
        """Turn arrivals into replies until the stream ends; its result is the stream's."""
        try:
            while not self._is_complete():
                if self._arrivals:
                    await self._process(self._arrivals.popleft())
                elif self._failure is not None:
                    raise self._failure
                elif self._is_draining and not self._pending_rows:
                    raise DrainingError(
                        "the server, or the version of the model, is going away; go on at next_index, here or at "
                        "another server",
                    )
                else:
                    self._check_allowance()
                    await self._wait_for_arrival()
        except ServiceError as error:
            if error.next_index is None and self._next_index < NUM_INDICES:
                error.next_index = self._next_index
            raise
        finally:
            self._outbox.close(self._next_index)

    def _check_allowance(self) -> None:
        """End the stream if it wants rows that it may not have, once all it was given has been sent.

        Raises:
            ServiceError: A limit of the client, or its token, has come to an end.
        """
        if self._pending_rows or not self._source.num_ready(1):
            return
        error = self._allowance.refusal()
        if error is not None:
            raise error

    def _is_complete(self) -> bool:
        """Whether the stream has reached its end.

        Raises:
            ScanLimitError: It has scanned max_scanned rows and not reached it.
        """
        if self._has_enough:
            return True
        if self._pending_rows or not self._source.is_exhausted:
            return False
        if self._source.is_at_end:
            return True
        raise ScanLimitError(
            f"max_scanned indices ({self._job.max_scanned}) were scanned and {self._num_accepted} samples accepted; "
            "loosen the filter or raise max_scanned",
            field="max_scanned",
        )

    async def _wait_for_arrival(self) -> None:
        self._arrived.clear()
        if not (self._account.held_rows or self._source.is_exhausted or self._source.num_ready(1)):
            self._sending.begin()
        try:
            async with asyncio.timeout(self._outbox.seconds_until_report):
                await self._arrived.wait()
        except TimeoutError:
            self._outbox.report_if_due(self._next_index)

    async def _process(self, delivery: Delivery) -> None:
        """Judge the rows of a delivery and queue the messages of those that are accepted."""
        self._account.note_delivery(delivery)
        verdict = await self._assembler.judge(delivery)
        num_rows = len(delivery.indices)
        accepted = verdict.accepted
        if self._job.max_accepted is not None:
            accepted = accepted[: self._job.max_accepted - self._num_accepted]
        self._num_accepted += len(accepted)
        num_scanned = accepted[-1] + 1 if self._has_enough else num_rows
        replies: list[Reply] = []
        if accepted:
            with self._releasing:
                replies = await self._assembler.build(
                    delivery,
                    verdict,
                    accepted,
                    num_scanned=num_scanned,
                    num_unreported=self._outbox.num_unreported,
                )
            self._account.note_encoded(verdict.began_ns + self._assembler.waited_ns, len(accepted))
        self._outbox.num_unreported = 0 if accepted else self._outbox.num_unreported + num_rows
        self._next_index = delivery.indices[num_scanned - 1] + 1
        self._pending_rows -= num_rows
        self._account.hold(len(accepted) - num_rows)
        self._account.note_verdict(num_scanned=num_scanned, num_accepted=len(accepted))
        for reply in replies:
            self._outbox.put(reply)
        if not replies:
            self._outbox.report_if_due(self._next_index)
        self._scheduler.wake()
