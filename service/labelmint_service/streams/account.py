"""The account of a stream: what metrics, its trace and the last line of its call tell of it."""

from __future__ import annotations

import time
from collections import Counter

from labelmint_service.messages.batching import Reply
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.scheduling.rows import Delivery
from labelmint_service.structured_logs import add_log_context
from labelmint_service.tracing.calls import CallTrace


class StreamAccount:
    """Counts rows, samples and time.

    Args:
        model: Name of the model.
        metrics: Where to count.
        trace: What is told of the call.

    Attributes:
        held_rows: Rows handed out and neither rejected nor taken by the caller.
    """

    def __init__(self, model: str, metrics: ServiceMetrics, trace: CallTrace) -> None:
        self.held_rows = 0
        self._model = model
        self._metrics = metrics
        self._trace = trace
        self._spent_ns = Counter[str]()
        self._sending_since_ns: int | None = None
        self._sending_rows = 0

    def refuse(self, limit: str) -> None:
        """Note that a limit of the client keeps the stream from beginning."""
        self._metrics.streams_refused.labels(self._model, f"client {limit}").inc()

    def hold(self, count: int) -> None:
        """Note that so many rows more are held, or fewer."""
        self.held_rows += count
        self._metrics.queued_rows.labels(self._model).inc(count)

    def note_delivery(self, delivery: Delivery) -> None:
        """Note how long rows have waited and were computed."""
        self._spent_ns.update(turn=delivery.waited_ns, queue=delivery.queue_ns, compute=delivery.compute_ns)

    def note_verdict(self, *, num_scanned: int, num_accepted: int) -> None:
        """Note that rows were judged."""
        self._metrics.samples_scanned.labels(self._model).inc(num_scanned)
        self._metrics.samples_rejected.labels(self._model).inc(num_scanned - num_accepted)

    def note_encoded(self, began_ns: int, num_rows: int) -> None:
        """Note that rows were judged, encoded and put into messages since."""
        self._observe("encode", began_ns, num_rows)

    def begin_send(self, reply: Reply) -> None:
        """Note that a message is handed to the caller."""
        self._sending_since_ns = time.perf_counter_ns()
        self._sending_rows = reply.num_rows

    def end_send(self, reply: Reply) -> None:
        """Note that the caller has taken it."""
        assert self._sending_since_ns is not None, "begin first"
        self._observe("send", self._sending_since_ns, reply.num_rows)
        self._sending_since_ns = None
        self._sending_rows = 0
        self._metrics.samples_sent.labels(self._model).inc(reply.num_rows)
        self._metrics.bytes_sent.labels(self._model).inc(len(reply.data))
        self.hold(-reply.num_rows)

    def drop(self) -> None:
        """Note that nothing is held any more but the message that is handed to the caller."""
        self.hold(self._sending_rows - self.held_rows)

    def end(self, *, num_accepted: int, next_index: int) -> None:
        """Note that the stream is over; whatever it held, it holds no more."""
        if self._sending_since_ns is not None:  # the caller left before it took this message
            self._observe("send", self._sending_since_ns, 0)
        self._trace.describe(samples=num_accepted, next_index=str(next_index))
        spent_s = {f"{stage}_s": round(spent_ns / 1e9, 3) for stage, spent_ns in self._spent_ns.items()}
        add_log_context(samples=num_accepted, **spent_s)
        self.hold(-self.held_rows)

    def _observe(self, stage: str, began_ns: int, num_rows: int) -> None:
        ended_ns = time.perf_counter_ns()
        histogram = self._metrics.stage_seconds.labels(self._model, stage)
        histogram.observe((ended_ns - began_ns) / 1e9, self._trace.exemplar)
        self._spent_ns[stage] += ended_ns - began_ns
        self._trace.add_stage(stage, began_ns, ended_ns, rows=num_rows)
