"""Runs of an engine, watched: memory that runs out, runs that fail again and again, a run that never ends.

healthy --3 failed runs in a row--> unhealthy --the probe comes out as it did at the start--> healthy
healthy --3 runs in a row with non-finite rows, and the probe comes out otherwise--> unhealthy
any     --a run longer than the timeout--> lost: its thread cannot be ended, so the process has to

Rows that are not finite may be those of a caller's own styles, so only the probe tells whether it is the engine.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from enum import Enum
from typing import TypeVar

from labelmint_service.engine import EngineBatch, EngineInputs, LatentInputs, join_rows
from labelmint_service.errors import EngineLostError, EngineMemoryError, EngineRunError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
from labelmint_service.structured_logs import log_event

FAILURES_UNTIL_UNHEALTHY = 3
PROBE_INTERVAL_S = 5.0
_NO_TIME_S = 1e-3
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


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
        self._began_s = 0.0
        """When the thread began with its last run."""
        self._num_failures = 0
        self._num_non_finite = 0
        self._probing: asyncio.Task[None] | None = None

    async def run(self, inputs: EngineInputs) -> EngineBatch:
        """Run rows.

        Raises:
            EngineRunError: The run failed.
            EngineLostError: It took longer than the timeout, or an earlier one did.
        """
        if self.state is EngineState.LOST:
            raise self._lost()
        context = contextvars.copy_context()
        try:
            outputs = await self._in_time(lambda: context.run(self._run, inputs))
        except EngineLostError:
            raise
        except Exception as error:
            self._count("memory" if isinstance(error, EngineMemoryError) else "run")
            log_event(_log, logging.ERROR, "engine.error", error=error, model=self._model.name, rows=inputs.num_rows)
            self._num_failures += 1
            if self._num_failures >= FAILURES_UNTIL_UNHEALTHY and self.state is EngineState.HEALTHY:
                self._become(EngineState.UNHEALTHY)
                self._probe(self._probe_until_healthy())
            raise
        self._num_failures = 0
        self._num_non_finite = 0 if outputs.finite.all() else self._num_non_finite + 1
        if self._num_non_finite >= FAILURES_UNTIL_UNHEALTHY and self.state is EngineState.HEALTHY:
            self._num_non_finite = 0
            self._probe(self._doubt())
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

    def _probe(self, probing: Coroutine[None, None, None]) -> None:
        """Begin to probe, unless that is under way."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(probing)
        else:
            probing.close()

    async def _doubt(self) -> None:
        """Find out whether it is the engine that gives rows which are not finite."""
        if not await self._is_well() and self.state is EngineState.HEALTHY:
            self._become(EngineState.UNHEALTHY)
        await self._probe_until_healthy()

    async def _probe_until_healthy(self) -> None:
        while self.state is EngineState.UNHEALTHY:
            await asyncio.sleep(self._probe_interval_s)
            if await self._is_well():
                self._num_failures = 0
                self._become(EngineState.HEALTHY)

    async def _in_time(self, work: Callable[[], _T]) -> _T:
        """Do work in the thread, where each run of the engine has its own time, from when the thread begins with it.

        Raises:
            EngineLostError: A run took longer.
        """
        asked_s = time.monotonic()
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        while not running.done():
            left_s = max(asked_s, self._began_s) + self._timeout_s - time.monotonic()
            if left_s < _NO_TIME_S:
                running.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody waits
                if self.state is not EngineState.LOST:
                    self._count("lost")
                    self._become(EngineState.LOST)
                raise self._lost()
            await asyncio.wait({running}, timeout=left_s)
        return running.result()

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
        parts = [self._run_once(inputs.rows(first, first + size)) for first in range(0, num_rows, size)]
        try:
            return join_rows(parts)
        except MemoryError as error:
            raise EngineMemoryError("memory ran out beside the engine") from error

    def _run_once(self, inputs: EngineInputs) -> EngineBatch:
        """One run. Whatever the engine raises is an EngineRunError, and so is a batch that lacks rows.

        Raises:
            EngineMemoryError: Memory ran out.
            EngineRunError: Anything else.
        """
        self._began_s = time.monotonic()
        try:
            engine = self._model.engine
            outputs = engine.run(inputs) if isinstance(inputs, LatentInputs) else engine.run_styles(inputs.ws)
        except EngineRunError:
            raise
        except MemoryError as error:  # numpy's, outside onnxruntime
            raise EngineMemoryError("memory ran out in the engine") from error
        except Exception as error:
            raise EngineRunError(f"the engine failed with {type(error).__name__}: {error}") from error
        for field in fields(outputs):
            array = getattr(outputs, field.name)
            if array is not None and len(array) != inputs.num_rows:
                raise EngineRunError(f"the engine gave {len(array)} rows of {field.name}, expected {inputs.num_rows}")
        return outputs

    async def _is_well(self) -> bool:
        """Whether the probe comes out; whatever the engine raises, the next probe may."""
        try:
            return await self._in_time(self._passes_probe)
        except EngineLostError:
            return False
        except Exception as error:  # noqa: BLE001 - an engine that fails is not well, and is asked again
            log_event(_log, logging.WARNING, "engine.probe_failed", error=error, model=self._model.name)
            return False

    def _passes_probe(self) -> bool:
        """Whether the rows of the warm-up come out as they did.

        Raises:
            EngineMemoryError: Memory ran out.
        """
        try:
            digests = self._run_in_parts(self._model.probe.inputs).digests()
        except EngineMemoryError:
            raise
        except EngineRunError as error:
            log_event(_log, logging.WARNING, "engine.probe_failed", error=error, model=self._model.name)
            return False
        if not self._model.probe.matches(digests):
            message = "the rows differ from those at the start"
            log_event(_log, logging.WARNING, "engine.probe_failed", model=self._model.name, message=message)
            return False
        return True

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
