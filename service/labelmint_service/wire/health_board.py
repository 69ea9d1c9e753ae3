"""The health board: what grpc.health.v1 and the metrics say of the server, its models and their versions.

""                    started, with the first look at the repository done, and not stopping
labelmint.v1...       the same
NAME                  what NAME alone asks for is ready, and its engines are well
NAME@VERSION          this version is ready, and its engines are well
"""

from __future__ import annotations

import asyncio
import contextlib

from grpc_health.v1 import health, health_pb2

from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.catalog import ModelCatalog, VersionState
from labelmint_service.models.references import DEFAULT, Reference
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.engine_runner import EngineState
from labelmint_service.scheduling.fleet import Fleet

_Status = health_pb2.HealthCheckResponse


class HealthBoard:
    """Tells how everything is, again after each change.

    Args:
        catalog: The models.
        fleet: What runs them.
        metrics: Where the state of engines is shown.
        server_names: Names that stand for the server as a whole.

    Attributes:
        servicer: What a gRPC server registers.
    """

    def __init__(self, catalog: ModelCatalog, fleet: Fleet, metrics: ServiceMetrics, server_names: list[str]) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        self._catalog = catalog
        self._fleet = fleet
        self._metrics = metrics
        self._server_names = server_names
        self._is_started = False
        self._told: dict[str, int] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Tell that the server is not ready yet."""
        await self.servicer.set("", _Status.NOT_SERVING)

    async def start(self) -> None:
        """Tell that the server is ready."""
        self._is_started = True
        self.look()
        await asyncio.gather(*self._telling)

    async def stop(self) -> None:
        """Tell that nothing serves any more, whatever else changes."""
        await self.servicer.enter_graceful_shutdown()

    def look(self) -> None:
        """Tell what has changed. For the event loop."""
        now = dict.fromkeys(["", *self._server_names], self._status(is_serving=self._is_started))
        for name in self._catalog.names:
            default = self._catalog.aliases(name).get(DEFAULT)
            is_healthy = {version.name: False for version in self._catalog.versions(name)}
            for version in self._catalog.versions(name):
                if version.state is VersionState.READY and version.model is not None:
                    is_healthy[version.name] = self._is_healthy(version.model)
                now[str(Reference(name, version.name))] = self._status(is_serving=is_healthy[version.name])
            serves = default is not None and is_healthy[default]
            now[name] = self._status(is_serving=serves)
            if default is not None:
                self._metrics.engine_healthy.labels(name).set(serves)
            else:  # being loaded is not being unhealthy
                self._forget(name)
        gone = {name: _Status.SERVICE_UNKNOWN for name in self._told if name not in now}
        for name in gone:
            self._forget(name)
        for name, status in {**now, **gone}.items():
            if self._told.get(name) != status:
                self._tell(name, status)
        self._told = now

    def _forget(self, name: str) -> None:
        with contextlib.suppress(KeyError):  # it may never have been ready
            self._metrics.engine_healthy.remove(name)

    def _tell(self, name: str, status: int) -> None:
        task = asyncio.get_running_loop().create_task(self.servicer.set(name, status))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _is_healthy(self, model: ServedModel) -> bool:
        return self._fleet.state_of(model) is EngineState.HEALTHY

    @staticmethod
    def _status(*, is_serving: bool) -> int:
        return int(_Status.SERVING if is_serving else _Status.NOT_SERVING)
