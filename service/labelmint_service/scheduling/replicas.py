"""Replicas: the engines of one model. A batch goes to one that is free, and it does not matter to which.

Their state together is that of the best: the model is healthy while one of them is. One that is lost is lost for all,
because its thread keeps the process from ending.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from labelmint_service.engine import EngineBatch, EngineInputs
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.engine_runner import PROBE_INTERVAL_S, EngineRunner, EngineState


class Replicas:
    """Runs the engines of one model, each in a thread of its own.

    Args:
        model: Whose engines.
        metrics: Where to count.
        timeout_s: How long a run may take.
        probe_interval_s: Time between probes of an unhealthy engine.
        on_state: Called on the event loop with each new state of the whole.

    Attributes:
        state: How the best engine does; lost if any is.
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
        self._on_state = on_state
        self._runners = [
            EngineRunner(
                replica,
                metrics=metrics,
                timeout_s=timeout_s,
                probe_interval_s=probe_interval_s,
                on_state=lambda _: self._look(),
            )
            for replica in model.replicas
        ]
        self._free = deque(self._runners)
        self._freed = asyncio.Event()

    @property
    def num_usable(self) -> int:
        """Batches that are worth running at a time: one for each healthy engine, and one if there is none."""
        return max(1, sum(runner.state is EngineState.HEALTHY for runner in self._runners))

    async def run(self, inputs: EngineInputs) -> tuple[EngineBatch, Mapping[str, int]]:
        """Run rows, once an engine is free.

        Returns:
            What came out, and the time of the engine's parts, as far as it tells them.

        Raises:
            EngineRunError: The run failed.
            EngineLostError: It took longer than the timeout, or an earlier one did.
        """
        # The longest free one, so that all take part; one that is not well only if there is no other.
        while not self._free:
            self._freed.clear()
            await self._freed.wait()
        runner = next((free for free in self._free if free.state is EngineState.HEALTHY), self._free[0])
        self._free.remove(runner)
        try:
            outputs = await runner.run(inputs)
            return outputs, runner.stages_ns
        finally:
            self._free.append(runner)
            self._freed.set()

    async def close(self) -> None:
        """Free the threads; one that is stuck is left behind."""
        for runner in self._runners:
            await runner.close()

    def _look(self) -> None:
        states = [runner.state for runner in self._runners]
        best = EngineState.HEALTHY if EngineState.HEALTHY in states else EngineState.UNHEALTHY
        state = EngineState.LOST if EngineState.LOST in states else best
        if state is not self.state:
            self.state = state
            self._on_state(state)
