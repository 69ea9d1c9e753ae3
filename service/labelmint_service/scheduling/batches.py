"""Batches: one goes to an engine and comes back; whatever happens, every stream in it learns how it ended.

Just before it is computed, rows whose caller has gone or is late are dropped. Where latents cannot be made, what stands
before them is computed and their stream ends. After a failed run each stream is tried alone; where a row comes out
non-finite, what stands before it is computed again and its stream ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from labelmint_service.engine import EngineBatch, EngineInputs, join_rows
from labelmint_service.errors import EngineLostError, EngineRunError, LateError, NonFiniteSampleError, ServiceError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.admission import Queue
from labelmint_service.scheduling.replicas import Replicas
from labelmint_service.scheduling.rows import Delivery
from labelmint_service.scheduling.work import LoadedPart, Part, WorkStream
from labelmint_service.structured_logs import add_log_context, log_event
from labelmint_service.tracing.calls import Tracing

_log = logging.getLogger(__name__)
MayDeliver: TypeAlias = Callable[[], Awaitable[None]]
"""Waits until rows that were computed may be delivered."""


async def _at_once() -> None:
    """Wait for nothing."""


class BatchRunner:
    """Runs the batches of one version of a model.

    Args:
        model: What runs.
        replicas: What runs it.
        queue: Wants to know how long it takes.
        metrics: Where to count.
        tracing: Where traces go.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        replicas: Replicas,
        queue: Queue[WorkStream],
        metrics: ServiceMetrics,
        tracing: Tracing,
    ) -> None:
        self._model = model
        self._name = model.name
        self._replicas = replicas
        self._queue = queue
        self._metrics = metrics
        self._tracing = tracing

    async def run(self, parts: Sequence[Part], may_deliver: MayDeliver) -> None:
        """Run one batch and deliver it.

        Args:
            parts: What it is made of.
            may_deliver: Waits for batches with earlier rows of the same streams.

        Raises:
            EngineLostError: The engine does not answer.
        """
        try:
            inputs = await asyncio.gather(*(part.loading for part in parts), return_exceptions=True)
            loaded, errors = _sort_out(parts, inputs)
            await self._compute(loaded, may_deliver)
            if errors:
                await may_deliver()
                self._fail(errors)
        except Exception as error:
            for part in parts:
                part.stream.fail(error)
            raise

    def _is_wanted(self, part: LoadedPart) -> bool:
        """Whether somebody still waits for the rows; tells a late stream that it is."""
        stream = part.stream
        if not stream.is_closed and not stream.is_late:
            return True
        self._metrics.rows_dropped.labels(self._name).inc(len(part.indices))
        if not stream.is_closed:
            stream.fail(LateError("the deadline passed before the work was done; allow more time or ask for less"))
        return False

    async def _compute(self, given: Sequence[LoadedPart], may_deliver: MayDeliver = _at_once) -> None:
        """Run rows and deliver them. After a failure each stream is tried alone, so that one cannot fail another."""
        parts = [part for part in given if self._is_wanted(part)]
        if not parts:
            return
        model = self._name
        num_rows = sum(len(part.indices) for part in parts)
        # More than the whole where the engine shrank after the batch was formed.
        self._metrics.batch_fill.labels(model).observe(min(1.0, num_rows / self._model.engine.batch_size))
        inputs = join_rows([part.inputs for part in parts])
        began_ns = time.perf_counter_ns()
        try:
            # The task of a batch has a context of its own.
            add_log_context(request_ids=",".join(dict.fromkeys(part.stream.request_id for part in parts)))
            outputs, stages_ns = await self._replicas.run(inputs)
        except EngineRunError as error:
            self._tracing.add_batch(model, parts, began_ns, time.perf_counter_ns(), {}, error)
            await may_deliver()
            await self._after_failure(parts, error)
            return
        except EngineLostError as error:
            self._tracing.add_batch(model, parts, began_ns, time.perf_counter_ns(), {}, error)
            raise
        ended_ns = time.perf_counter_ns()
        compute_ns = ended_ns - began_ns
        self._queue.note_batch(compute_ns)
        self._tracing.add_batch(model, parts, began_ns, ended_ns, stages_ns)
        self._metrics.stage_seconds.labels(model, "compute").observe(compute_ns / 1e9)
        await may_deliver()
        if not outputs.finite.all():
            self._metrics.engine_errors.labels(model, "non_finite").inc()
            await self._without_non_finite(parts, outputs.finite)
            return
        self._deliver(parts, outputs, began_ns, compute_ns)

    async def _after_failure(self, parts: Sequence[LoadedPart], error: EngineRunError) -> None:
        streams = list(dict.fromkeys(part.stream for part in parts))
        if len(streams) == 1:
            streams[0].fail(error)
            return
        for stream in streams:
            await self._compute([part for part in parts if part.stream is stream])

    async def _without_non_finite(self, parts: Sequence[LoadedPart], finite: npt.NDArray[np.bool_]) -> None:
        """Discard a batch, compute again what stands before each stream's first bad row, and end those streams."""
        errors: dict[WorkStream, ServiceError] = {}
        kept: list[LoadedPart] = []
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

    def _fail(self, errors: Mapping[WorkStream, Exception]) -> None:
        """End streams whose latents could not be made."""
        for stream, error in errors.items():
            request_id = stream.request_id
            log_event(_log, logging.ERROR, "scheduler.error", error=error, model=self._name, request_id=request_id)
            stream.fail(error)

    def _deliver(self, parts: Sequence[LoadedPart], outputs: EngineBatch, began_ns: int, compute_ns: int) -> None:
        first = 0
        for part in parts:
            last = first + len(part.indices)
            queue_ns = began_ns - part.taken_ns
            histogram = self._metrics.stage_seconds.labels(self._name, "queue")
            histogram.observe(queue_ns / 1e9, part.stream.trace.exemplar)
            part.stream.deliver(
                Delivery(
                    indices=part.indices,
                    inputs=part.inputs,
                    outputs=outputs.rows(first, last),
                    waited_ns=part.waited_ns,
                    queue_ns=queue_ns,
                    compute_ns=compute_ns,
                ),
            )
            first = last


def _sort_out(
    parts: Sequence[Part], inputs: Sequence[EngineInputs | BaseException]
) -> tuple[list[LoadedPart], dict[WorkStream, Exception]]:
    """Part what may be computed from what could not be loaded.

    Args:
        parts: Of a batch.
        inputs: Of each, or what kept them from being made.

    Returns:
        Parts that were loaded, up to the first of each stream that was not; and for each such stream why.
    """
    loaded: list[LoadedPart] = []
    errors: dict[WorkStream, Exception] = {}
    for part, rows in zip(parts, inputs, strict=True):
        if part.stream in errors:
            continue
        if isinstance(rows, Exception):
            errors[part.stream] = rows
        elif isinstance(rows, BaseException):
            raise rows  # cancelled or interrupted, which is not the stream's
        else:
            loaded.append(part.loaded(rows))
    return loaded, errors


def _non_finite(index: int) -> NonFiniteSampleError:
    return NonFiniteSampleError(
        f"sample {index} has a non-finite image, logit or heatmap; it was not sent, start after it to leave it out",
        next_index=index + 1,
    )
