"""Runs of an engine, watched: memory that runs out, runs that fail again and again, a run that never ends.

healthy --3 failed runs in a row--> unhealthy --the probe comes out as it did at the start--> healthy
any     --a run longer than the timeout--> lost: its thread cannot be ended, so the process has to
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import numpy as np

from labelmint_service.engine import EngineBatch, EngineInputs
from labelmint_service.engine.protocol import run_inputs
from labelmint_service.errors import EngineLostError, EngineMemoryError, EngineRunError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel, digest_rows
from labelmint_service.scheduling.rows import slice_inputs
from labelmint_service.structured_logs import log_event

FAILURES_UNTIL_UNHEALTHY = 3
PROBE_INTERVAL_S = 5.0
_log = logging.getLogger(__name__)


class EngineState(Enum):
    """What an operator should know of an engine."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    LOST = "lost"


class EngineRunner:
    """Runs the engine of one model in a thread of its own.

    Args:
        model: Whose engine.
        metrics: Where to count.
        timeout_s: How long a run may take.
        probe_interval_s: Time between probes of an unhealthy engine.
        on_state: Called on the event loop with each new state.

    Attributes:
        state: How the engine does.
        stages_ns: Time of the parts of the last run; empty if the engine does not tell them apart.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        metrics: ServiceMetrics,
        timeout_s: float,
        probe_interval_s: float = PROBE_INTERVAL_S,
        on_state: Callable[[EngineState], None],
    ) -> None:
        self.state = EngineState.HEALTHY
        self.stages_ns: Mapping[str, int] = {}
        self._model = model
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._probe_interval_s = probe_interval_s
        self._on_state = on_state
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{model.name}")
        self._num_failures = 0
        self._probing: asyncio.Task[None] | None = None

    async def run(self, inputs: EngineInputs) -> EngineBatch:
        """Run rows.

        Raises:
            EngineRunError: The run failed.
            EngineLostError: It took longer than the timeout, or an earlier one did.
        """
        if self.state is EngineState.LOST:
            raise self._lost()
        running = asyncio.get_running_loop().run_in_executor(
            self._thread, contextvars.copy_context().run, self._run, inputs
        )
        done, _ = await asyncio.wait({running}, timeout=self._timeout_s)
        if not done:
            running.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody waits any more
            self._count("lost")
            self._become(EngineState.LOST)
            raise self._lost()
        try:
            outputs = running.result()
        except Exception as error:
            self._count("memory" if isinstance(error, EngineMemoryError) else "run")
            log_event(_log, logging.ERROR, "engine.error", error=error, model=self._model.name, rows=inputs.num_rows)
            self._num_failures += 1
            if self._num_failures >= FAILURES_UNTIL_UNHEALTHY and self.state is EngineState.HEALTHY:
                self._become(EngineState.UNHEALTHY)
                self._probing = asyncio.get_running_loop().create_task(self._probe_until_healthy())
            raise
        self._num_failures = 0
        self.stages_ns = dict(self._model.engine.stages_ns)
        for stage, duration_ns in self.stages_ns.items():
            self._metrics.stage_seconds.labels(self._model.name, stage).observe(duration_ns / 1e9)
        return outputs

    async def close(self) -> None:
        """Free the thread; one that is stuck is left behind."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        self._thread.shutdown(wait=self.state is not EngineState.LOST)

    async def _probe_until_healthy(self) -> None:
        while self.state is EngineState.UNHEALTHY:
            await asyncio.sleep(self._probe_interval_s)
            running = asyncio.get_running_loop().run_in_executor(self._thread, self._is_well)
            done, _ = await asyncio.wait({running}, timeout=self._timeout_s)
            if not done:
                self._count("lost")
                self._become(EngineState.LOST)
            elif running.result():
                self._num_failures = 0
                self._become(EngineState.HEALTHY)

    def _run(self, inputs: EngineInputs) -> EngineBatch:
        """Run rows; when memory runs out, in smaller batches from then on, if these give the same bits."""
        engine, whole = self._model.engine, self._model.engine.batch_size
        try:
            return self._run_in_parts(inputs)
        except EngineMemoryError:
            while engine.batch_size > 1 and engine.resize(engine.batch_size // 2):
                try:
                    if not self._passes_probe():
                        break
                    outputs = self._run_in_parts(inputs)
                except EngineMemoryError:
                    continue
                self._count("memory")
                log_event(_log, logging.WARNING, "engine.shrunk", model=self._model.name, batch_size=engine.batch_size)
                return outputs
            engine.resize(whole)
            raise

    def _run_in_parts(self, inputs: EngineInputs) -> EngineBatch:
        size, num_rows = self._model.engine.batch_size, inputs.num_rows
        try:
            parts = [
                run_inputs(self._model.engine, slice_inputs(inputs, first, min(first + size, num_rows)))
                for first in range(0, num_rows, size)
            ]
        except MemoryError as error:  # numpy's, outside onnxruntime
            raise EngineMemoryError("memory ran out in the engine") from error
        return parts[0] if len(parts) == 1 else join_outputs(parts)

    def _is_well(self) -> bool:
        """Whether the probe comes out; whatever the engine raises, the next probe may."""
        try:
            return self._passes_probe()
        except Exception as error:  # noqa: BLE001 - an engine that fails is not well, and is asked again
            log_event(_log, logging.WARNING, "engine.probe_failed", error=error, model=self._model.name)
            return False

    def _passes_probe(self) -> bool:
        """Whether the rows of the warm-up come out as they did.

        Raises:
            EngineMemoryError: Memory ran out.
        """
        try:
            return digest_rows(self._run_in_parts(self._model.probe.inputs)) == self._model.probe.digests
        except EngineMemoryError:
            raise
        except EngineRunError:
            return False

    def _become(self, state: EngineState) -> None:
        self.state = state
        level = logging.INFO if state is EngineState.HEALTHY else logging.ERROR
        log_event(_log, level, "engine.state", model=self._model.name, state=state.value)
        self._on_state(state)

    def _count(self, kind: str) -> None:
        self._metrics.engine_errors.labels(self._model.name, kind).inc()

    def _lost(self) -> EngineLostError:
        return EngineLostError(
            f"the engine of model {self._model.name!r} has not answered for {self._timeout_s:g} s and the server is "
            "going away; go on at next_index with another one or after its restart",
        )


def join_outputs(parts: list[EngineBatch]) -> EngineBatch:
    """Stack the rows of several outputs."""
    keypoints = [part.keypoints for part in parts if part.keypoints is not None]
    scores = [part.scores for part in parts if part.scores is not None]
    return EngineBatch(
        image=np.concatenate([part.image for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        uncertainty_map=np.concatenate([part.uncertainty_map for part in parts]),
        keypoints=np.concatenate(keypoints) if keypoints else None,
        finite=np.concatenate([part.finite for part in parts]),
        scores=np.concatenate(scores) if scores else None,
    )
