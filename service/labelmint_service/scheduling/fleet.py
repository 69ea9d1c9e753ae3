"""The fleet: what runs. Each version of a model has engines, their threads and a scheduler of its own.

deploy --streams begin and end--> retire: no new ones, those that run end on this version --> its engines close
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.memory_use import release_freed_memory
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.admission import Queue, WaitingRoom
from labelmint_service.scheduling.device_memory import DeviceMemory
from labelmint_service.scheduling.engine_runner import EngineState
from labelmint_service.scheduling.replicas import Replicas
from labelmint_service.scheduling.scheduler import Scheduler
from labelmint_service.settings import ServiceSettings
from labelmint_service.structured_logs import log_event
from labelmint_service.tracing.calls import Tracing

_log = logging.getLogger(__name__)


class Fleet:
    """Runs models, and closes their engines when they are no longer needed.

    Args:
        settings: Bounds.
        metrics: Where to count.
        pool: Threads that make latents; not closed here.
        tracing: Where traces go; not closed here.
        on_state: Called on the event loop with a model and each new state of its engines.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        metrics: ServiceMetrics,
        pool: Executor,
        tracing: Tracing,
        on_state: Callable[[ServedModel, EngineState], None],
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._pool = pool
        self._tracing = tracing
        self._on_state = on_state
        self._room = WaitingRoom(max_streams=settings.max_waiting_streams)
        self._device_memory = DeviceMemory(metrics)
        self._schedulers: dict[ServedModel, Scheduler] = {}
        self._replicas: dict[ServedModel, Replicas] = {}
        self._unwatch: dict[ServedModel, Callable[[], None]] = {}

    def deploy(self, model: ServedModel, version: str) -> None:
        """Run a model on the running event loop. From now on it is closed here.

        Args:
            model: What to run.
            version: Its name, for the metrics.
        """
        replicas = Replicas(
            model,
            metrics=self._metrics,
            timeout_s=self._settings.engine_timeout_s,
            on_state=lambda state: self._on_state(model, state),
        )
        scheduler = Scheduler(
            model,
            pool=self._pool,
            replicas=replicas,
            metrics=self._metrics,
            max_streams=self._settings.max_streams,
            queue=Queue(model.name, self._room, self._settings.max_wait_s, self._metrics),
            tracing=self._tracing,
        )
        self._replicas[model], self._schedulers[model] = replicas, scheduler
        self._metrics.show_model(model.name)
        self._metrics.model_info.labels(*_info(model, version)).set(1)
        self._metrics.model_memory_bytes.labels(model.name, version).set(model.memory_bytes)
        self._unwatch[model] = self._device_memory.watch(model, self._settings.engine_choice)
        scheduler.start()

    def scheduler_of(self, model: ServedModel) -> Scheduler:
        """What fills the batches of a model that runs."""
        return self._schedulers[model]

    def state_of(self, model: ServedModel) -> EngineState:
        """How the engines of a model do that runs."""
        return self._replicas[model].state

    def num_streams(self, model: ServedModel) -> int:
        """Streams of a model in work; none if it does not run."""
        scheduler = self._schedulers.get(model)
        return 0 if scheduler is None else scheduler.num_streams

    async def retire(self, model: ServedModel, version: str, *, limit_s: float) -> None:
        """Let the streams of a model end, then close its engines.

        Args:
            model: What runs.
            version: Its name, for the metrics.
            limit_s: Time that streams get, after which they end with a resume point.
        """
        scheduler = self._schedulers[model]
        await scheduler.retire(limit_s)
        await scheduler.close()
        self._unwatch.pop(model)()
        del self._schedulers[model], self._replicas[model]
        self._metrics.model_info.remove(*_info(model, version))
        self._metrics.model_memory_bytes.remove(model.name, version)
        if scheduler.is_lost:
            return  # its thread is still in it, and the server ends
        await asyncio.to_thread(model.close)
        await asyncio.to_thread(release_freed_memory)
        log_event(_log, logging.INFO, "model.closed", model=model.name, version=version, digest=model.bundle.digest)

    async def drain(self) -> None:
        """Take no new streams; let those in work finish their batches and end with a resume point."""
        await asyncio.gather(*(scheduler.drain() for scheduler in self._schedulers.values()))

    async def close(self) -> None:
        """Drain, then free threads and engines."""
        schedulers = dict(self._schedulers)
        await asyncio.gather(*(scheduler.close() for scheduler in schedulers.values()))
        for model, scheduler in schedulers.items():
            self._unwatch.pop(model)()
            if not scheduler.is_lost:
                model.close()


def _info(model: ServedModel, version: str) -> tuple[str, str, str, str, str]:
    """Values of the labels of `model_info`."""
    return model.name, version, model.bundle.digest, model.numerics.id, model.engine.name
