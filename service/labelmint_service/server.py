"""The server: grpc.aio around the servicer, with health, reflection and metrics, that starts and stops cleanly."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from labelmint.hosts import is_loopback
from labelmint_service.access.certificates import CertificateFiles, Certificates
from labelmint_service.access.control import Access, OpenAccess, TokenAccess
from labelmint_service.engine_runner import EngineState
from labelmint_service.errors import StartError
from labelmint_service.metrics import MetricsEndpoint, ServiceMetrics
from labelmint_service.models import ModelCatalog, ServedModel, load_model
from labelmint_service.profile import draw_profile
from labelmint_service.ready_file import Readiness, ready_file
from labelmint_service.sampling import SamplingService
from labelmint_service.servicer import SERVICE_NAME, LabelMintServicer, TokenGuard
from labelmint_service.settings import ServiceSettings
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)
_WATCHER_GRACE_S = 0.2
_MAX_FRAME_BYTES = 2**24 - 1


class LabelmintServer:
    """Serves models over gRPC on the running event loop.

    Args:
        settings: Where to listen and what bounds there are.
        models: What to serve; the server closes their engines when it stops.

    Attributes:
        lost: Set when an engine does not answer any more and the process has to end.

    Raises:
        StartError: Two models share a name, or a file that says who may call cannot be used.
    """

    def __init__(self, settings: ServiceSettings, models: Sequence[ServedModel]) -> None:
        self._settings = settings
        self._metrics = ServiceMetrics()
        self._catalog = ModelCatalog(models)
        self._sampling = SamplingService(self._catalog, settings, self._metrics, self._on_state)
        self._access = _make_access(settings, self._metrics)
        self._servicer = LabelMintServicer(self._sampling, self._access, self._metrics)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
        self._grpc_server: aio.Server | None = None
        self._endpoint: MetricsEndpoint | None = None
        self._hurried = asyncio.Event()
        self.lost = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    async def start(self) -> Readiness:
        """Listen and serve.

        Raises:
            StartError: A port cannot be taken, or a certificate cannot be used.
        """
        if self._settings.metrics:
            self._endpoint = MetricsEndpoint(self._metrics, self._settings.metrics_host, self._settings.metrics_port)
        server = aio.server(options=_channel_options(self._settings), interceptors=(TokenGuard(self._access),))
        server.add_generic_rpc_handlers((self._servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        self._grpc_server = server
        try:
            port = self._listen(server)
        except StartError:
            await self.stop(grace_s=0.0)
            raise
        self._sampling.start()
        self._access.start()
        await server.start()
        for name in (SERVICE_NAME, *(model.name for model in self._catalog)):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        readiness = Readiness(
            address=_join_address(self._settings.host, port),
            metrics=self._endpoint.url if self._endpoint else "",
            models={model.name: model.numerics.id for model in self._catalog},
        )
        log_event(_log, logging.INFO, "server.ready", address=readiness.address, metrics=readiness.metrics)
        return readiness

    async def stop(self, *, grace_s: float) -> None:
        """Stop: health says NOT_SERVING, streams end with a resume point, and what is left after the grace is cut.

        Args:
            grace_s: How long streams may take to end; `hurry` ends it early.
        """
        log_event(_log, logging.INFO, "server.draining", grace_s=grace_s)
        await self._health.enter_graceful_shutdown()
        loop = asyncio.get_running_loop()
        draining, hurried = loop.create_task(self._drain()), loop.create_task(self._hurried.wait())
        await asyncio.wait({draining, hurried}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if self._servicer.num_active:
            log_event(_log, logging.WARNING, "server.grace_over", active_calls=self._servicer.num_active)
        if self._grpc_server is not None:
            # Health watchers never end by themselves; everything else has ended or had its time.
            await self._grpc_server.stop(_WATCHER_GRACE_S)
        await draining
        await self._sampling.close()
        await self._access.close()
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.close)
        log_event(_log, logging.INFO, "server.stopped")

    def hurry(self) -> None:
        """End the grace of a stop at once."""
        self._hurried.set()

    def _on_state(self, name: str, state: EngineState) -> None:
        """Let health tell how an engine does."""
        self._metrics.engine_healthy.labels(name).set(state is EngineState.HEALTHY)
        status = health_pb2.HealthCheckResponse
        serving = status.SERVING if state is EngineState.HEALTHY else status.NOT_SERVING
        task = asyncio.get_running_loop().create_task(self._health.set(name, serving))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        if state is EngineState.LOST:
            self.lost.set()

    def profile(self) -> str:
        """Where the time went since the start, a table."""
        return draw_profile(self._metrics)

    async def _drain(self) -> None:
        await self._sampling.drain()
        await self._servicer.wait_until_idle()

    def _listen(self, server: aio.Server) -> int:
        wanted = _join_address(self._settings.host, self._settings.port)
        credentials = _server_credentials(self._settings, self._metrics)
        if credentials is None and not is_loopback(self._settings.host):
            log_event(
                _log,
                logging.WARNING,
                "server.plaintext",
                address=wanted,
                message="connections are not encrypted and others may reach them; give tls_certificate and tls_key, or "
                "listen on loopback",
            )
        try:
            if credentials is None:
                port = server.add_insecure_port(wanted)
            else:
                port = server.add_secure_port(wanted, credentials)
        except RuntimeError as error:  # what grpc raises when it cannot bind
            raise StartError(
                f"cannot listen on {wanted}; stop what uses it, or choose another --port (0 for any) or --host",
                field="port",
            ) from error
        return port


async def serve(
    settings: ServiceSettings,
    models: Sequence[ServedModel],
    announce: Callable[[Readiness], None],
) -> bool:
    """Serve until SIGTERM or SIGINT, or until an engine is lost; then drain. A second signal ends the grace.

    Args:
        settings: Where to serve.
        models: What to serve; their engines are closed in the end.
        announce: Called once the server is ready.

    Returns:
        Whether all engines are well; the thread of one that is lost never ends.

    Raises:
        StartError: A port cannot be taken, the ready file cannot be written, or two models share a name.
    """
    server = LabelmintServer(settings, models)
    stopping = asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            server.hurry()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    readiness = await server.start()
    grace_s = 0.0
    try:
        with ready_file(settings.ready_file, readiness):
            announce(readiness)
            ends = [loop.create_task(event.wait()) for event in (stopping, server.lost)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        grace_s = settings.grace_s
    finally:
        await server.stop(grace_s=grace_s)
        if settings.profile:
            print(server.profile(), file=sys.stderr)  # noqa: T201 - what --profile asks for
    return not server.lost.is_set()


def load_models(settings: ServiceSettings) -> list[ServedModel]:
    """Load every bundle of the settings.

    Raises:
        BundleError: A bundle is missing, malformed or altered.
        DigestMismatchError: A bundle is not the expected one.
        StartError: An engine does not run.
    """
    models = []
    digests = settings.expect_digest or (None,) * len(settings.bundle)
    for path, digest in zip(settings.bundle, digests, strict=True):
        model = load_model(
            path,
            engine=settings.engine,
            provider=settings.provider,
            kernel=settings.kernel,
            verify_files=settings.verify_files,
            expect_digest=digest,
        )
        log_event(_log, logging.INFO, "model.loaded", model=model.name, digest=model.bundle.digest, path=str(path))
        models.append(model)
    return models


def _make_access(settings: ServiceSettings, metrics: ServiceMetrics) -> Access:
    return TokenAccess(settings.tokens, settings.quota_file, metrics) if settings.tokens else OpenAccess()


def _server_credentials(settings: ServiceSettings, metrics: ServiceMetrics) -> grpc.ServerCredentials | None:
    """TLS whose certificates are read again when they change; None for plain text.

    Raises:
        AccessFileError: A certificate cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = CertificateFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca, metrics)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """What grpc asks for before each handshake; connections that there are stay as they are."""
        certificates = files.reload()
        return None if certificates is None else _configuration(certificates)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.load()),
        changed,  # type: ignore[arg-type]  # None stands for no change, which the stubs lack
        require_client_authentication=settings.tls_client_ca is not None,
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificates.key, certificates.chain)], certificates.client_ca)


def _channel_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent sharer
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),  # each request states its own limit
        ("grpc.http2.max_frame_size", _MAX_FRAME_BYTES),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_timeout_s * 1000)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_connection_calls),
    ]


def _join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
