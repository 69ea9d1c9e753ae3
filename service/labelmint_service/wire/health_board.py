"""The health board: what grpc.health.v1 and the metrics say of the server, its models and their versions.

""                    started, with the first look at the repository done, and not stopping
labelmint.v1...       the same
NAME                  what NAME alone asks for is ready, and its engines are well
NAME@VERSION          this version is ready, and its engines are well
"""

from __future__ import annotations

from grpc_health.v1 import health_pb2

from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.catalog import ModelCatalog, VersionState
from labelmint_service.models.references import DEFAULT, Reference
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.engine_runner import EngineState
from labelmint_service.scheduling.fleet import Fleet
from labelmint_service.wire.call_server import ServiceMethods
from labelmint_service.wire.health_servicer import HealthServicer

_Status = health_pb2.HealthCheckResponse


class HealthBoard:
    """Tells how everything is, again after each change.

    Args:
        catalog: The models.
        fleet: What runs them.
        metrics: Where the state of engines is shown.
        server_names: Names that stand for the server as a whole.
        timeout_s: Time that a call has for its request.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        fleet: Fleet,
        metrics: ServiceMetrics,
        *,
        server_names: list[str],
        timeout_s: float,
    ) -> None:
        self._servicer = HealthServicer(timeout_s)
        self._catalog = catalog
        self._fleet = fleet
        self._metrics = metrics
        self._server_names = server_names
        self._is_started = False
        self._measured: set[str] = set()
        self._servicer.tell(self._of_server())

    def methods(self) -> ServiceMethods:
        """What a server registers."""
        return self._servicer.methods()

    def start(self) -> None:
        """Tell that the server is ready."""
        self._is_started = True
        self.look()

    def stop(self) -> None:
        """Tell that nothing serves any more, whatever else changes."""
        self._servicer.stop()

    def look(self) -> None:
        """Tell how everything is. For the event loop."""
        now, measured = self._of_server(), set[str]()
        for name in self._catalog.names:
            default = self._catalog.aliases(name).get(DEFAULT)
            is_healthy = {version.name: False for version in self._catalog.versions(name)}
            for version in self._catalog.versions(name):
                if version.state is VersionState.READY and version.model is not None:
                    is_healthy[version.name] = self._is_healthy(version.model)
                now[str(Reference(name, version.name))] = self._status(is_serving=is_healthy[version.name])
            serves = default is not None and is_healthy[default]
            now[name] = self._status(is_serving=serves)
            if default is not None:  # being loaded is not being unhealthy
                self._metrics.engine_healthy.labels(name).set(serves)
                measured.add(name)
        for name in self._measured - measured:
            self._metrics.engine_healthy.remove(name)
        self._measured = measured
        self._servicer.tell(now)

    def _of_server(self) -> dict[str, int]:
        return dict.fromkeys(["", *self._server_names], self._status(is_serving=self._is_started))

    def _is_healthy(self, model: ServedModel) -> bool:
        return self._fleet.state_of(model) is EngineState.HEALTHY

    @staticmethod
    def _status(*, is_serving: bool) -> int:
        return int(_Status.SERVING if is_serving else _Status.NOT_SERVING)
