"""The server: grpc.aio around the servicers, with health, reflection and metrics, that starts and stops cleanly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

from labelmint.wire import SERVICE_NAME
from labelmint_service.access.control import Access, OpenAccess, TokenAccess
from labelmint_service.loading import make_loader
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.metrics_endpoint import MetricsEndpoint
from labelmint_service.models.catalog import ModelCatalog
from labelmint_service.models.served import ServedModel
from labelmint_service.open_files import ADMIN_CONNECTIONS
from labelmint_service.profile import draw_profile
from labelmint_service.ready_file import Readiness
from labelmint_service.repository.keeping import RepositoryKeeper
from labelmint_service.scheduling.engine_runner import EngineState
from labelmint_service.scheduling.fleet import Fleet
from labelmint_service.settings import ServiceSettings
from labelmint_service.streams.first_messages import FirstMessages
from labelmint_service.streams.sampling import SamplingService
from labelmint_service.structured_logs import log_event
from labelmint_service.tracing.opening import open_tracing
from labelmint_service.wire.admin_servicer import AdminServicer
from labelmint_service.wire.call_server import CallServer, Refuse, refuse_unknown
from labelmint_service.wire.calls import CallAnswerer
from labelmint_service.wire.health_board import HealthBoard
from labelmint_service.wire.health_servicer import HEALTH_NAME
from labelmint_service.wire.listening import channel_options, listen
from labelmint_service.wire.reflecting import reflection_methods
from labelmint_service.wire.servicer import LabelMintServicer
from labelmint_service.wire.token_guard import TokenGuard

_log = logging.getLogger(__name__)
_WATCHER_GRACE_S = 0.2
_AFTER_GRACE_S = 1.0
"""Time that batches and loads still at work get when the grace is over."""


class Ending(Enum):
    """How a server ended."""

    CLEAN = "clean"
    LOST = "lost"
    """An engine does not answer any more."""
    STUCK = "stuck"
    """A thread was still at work when the grace was over, and the process must not wait for it."""


class LabelmintServer:
    """Serves models over gRPC on the running event loop.

    Args:
        settings: Where to listen and what bounds there are.
        models: What to serve, besides a repository; the server closes their engines when it stops.

    Attributes:
        lost: Set when an engine does not answer any more and the process has to end.
        is_stuck: Whether a thread was still at work when the server had stopped.

    Raises:
        StartError: Two models share a name, a file that says who may call cannot be used, or traces cannot be sent.
    """

    def __init__(self, settings: ServiceSettings, models: Sequence[ServedModel]) -> None:
        self._settings = settings
        self._models = models
        self._metrics = ServiceMetrics()
        self._catalog = ModelCatalog(models)
        self._tracing = open_tracing(
            is_on=settings.tracing, endpoint=settings.tracing_endpoint, ratio=settings.tracing_ratio
        )
        self._pool = ThreadPoolExecutor(settings.encode_threads, thread_name_prefix="encode")
        self._fleet = Fleet(settings, self._metrics, self._pool, self._tracing, self._on_state)
        self._board = HealthBoard(
            self._catalog,
            self._fleet,
            self._metrics,
            server_names=[SERVICE_NAME],
            timeout_s=settings.first_message_timeout_s,
        )
        self._catalog.on_change = self._board.look
        self._repository: RepositoryKeeper | None = None
        if settings.model_repository is not None:
            self._repository = RepositoryKeeper(
                settings.model_repository,
                settings,
                self._catalog,
                self._fleet,
                make_loader(settings),
                self._metrics,
            )
        self._first_messages = FirstMessages(settings.first_message_timeout_s)
        self._sampling = SamplingService(
            self._catalog, self._fleet, self._pool, settings, self._metrics, self._first_messages
        )
        self._access = _make_access(settings, self._metrics)
        self._calls = CallAnswerer(self._access, self._metrics, self._tracing, self._first_messages)
        self._grpc_servers: list[CallServer] = []
        self._endpoint: MetricsEndpoint | None = None
        self._hurried = asyncio.Event()
        self.lost = asyncio.Event()
        self.is_stuck = False

    async def start(self) -> Readiness:
        """Listen and serve; then, with a repository, wait until what it begins with is ready or has failed.

        Raises:
            StartError: A port cannot be taken, a certificate or the repository cannot be used.
            BundleError: A version that the settings name cannot be loaded.
        """
        for model in self._models:
            self._fleet.deploy(model, model.bundle.manifest.version)
        try:
            return await self._start()
        except BaseException:
            await self.stop(grace_s=0.0)
            raise

    async def _start(self) -> Readiness:
        settings = self._settings
        if settings.metrics:
            self._endpoint = MetricsEndpoint(self._metrics, settings.metrics_host, settings.metrics_port)
        guard = TokenGuard(self._access, SERVICE_NAME, self._metrics)
        server = self._make_server(settings.max_connections, guard.refuse, guard)
        server.add_methods(LabelMintServicer(self._sampling, self._calls).methods())
        server.add_methods(self._board.methods())
        server.add_methods(reflection_methods([SERVICE_NAME, HEALTH_NAME]))
        address = listen(server, settings, self._metrics, host=settings.host, port=settings.port)
        admin = self._listen_for_admin()
        self._access.start()
        for one in self._grpc_servers:
            await one.start()
        if self._repository is not None:
            await self._repository.start()
        self._board.start()
        readiness = Readiness(
            address=address,
            metrics=self._endpoint.url if self._endpoint else "",
            models={model.name: model.numerics.id for model in self._catalog},
            admin=admin,
        )
        log_event(
            _log,
            logging.INFO,
            "server.ready",
            address=readiness.address,
            metrics=readiness.metrics,
            admin=readiness.admin or None,
        )
        return readiness

    def _listen_for_admin(self) -> str:
        """Add the admin service, if there is one; returns its address."""
        settings = self._settings
        if settings.admin_port is None:
            return ""
        assert self._repository is not None, "the settings ask for one"
        server = self._make_server(ADMIN_CONNECTIONS, refuse_unknown)
        admin = AdminServicer(
            self._repository.operations,
            self._catalog,
            self._fleet,
            self._calls,
            is_polled=settings.repository_mode == "poll",
        )
        server.add_methods(admin.methods())
        return listen(server, settings, self._metrics, host=settings.admin_host, port=settings.admin_port, name="admin")

    def _make_server(self, max_connections: int, refuse: Refuse, *interceptors: TokenGuard) -> CallServer:
        options = channel_options(self._settings, max_connections=max_connections)
        server = CallServer(options, interceptors, refuse)
        self._grpc_servers.append(server)
        return server

    async def stop(self, *, grace_s: float) -> None:
        """Stop: health says NOT_SERVING, streams end with a resume point, and what is left after the grace is cut.

        Batches and loads that are still at work then are waited for no more than a moment.

        Args:
            grace_s: How long streams may take to end; `hurry` ends it early.
        """
        log_event(_log, logging.INFO, "server.draining", grace_s=grace_s)
        self._board.stop()
        if self._repository is not None:
            await self._repository.stop()
        loop = asyncio.get_running_loop()
        draining, hurried = loop.create_task(self._drain()), loop.create_task(self._hurried.wait())
        await asyncio.wait({draining, hurried}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if self._calls.num_active:
            log_event(_log, logging.WARNING, "server.grace_over", active_calls=self._calls.num_active)
        # Health watchers never end by themselves; everything else has ended or had its time.
        await asyncio.gather(*(server.stop(_WATCHER_GRACE_S) for server in self._grpc_servers))
        working = loop.create_task(self._end_work(draining))
        done, _ = await asyncio.wait({working}, timeout=_AFTER_GRACE_S)
        self.is_stuck = not done or (self._repository is not None and self._repository.is_stuck)
        if not done:
            working.cancel()
            log_event(_log, logging.WARNING, "server.still_at_work")
        self._pool.shutdown(wait=not self.is_stuck)
        await self._access.close()
        await asyncio.to_thread(self._tracing.close)
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.close)
        log_event(_log, logging.INFO, "server.stopped")

    async def _end_work(self, draining: asyncio.Task[None]) -> None:
        await draining
        if self._repository is not None:
            await self._repository.close()
        await self._fleet.close()

    @property
    def ending(self) -> Ending:
        """How it ended."""
        if self.lost.is_set():
            return Ending.LOST
        return Ending.STUCK if self.is_stuck else Ending.CLEAN

    def hurry(self) -> None:
        """End the grace of a stop at once."""
        self._hurried.set()

    def _on_state(self, _model: ServedModel, state: EngineState) -> None:
        """Let health tell how an engine does."""
        self._board.look()
        if state is EngineState.LOST:
            self.lost.set()

    def profile(self) -> str:
        """Where the time went since the start, a table."""
        return draw_profile(self._metrics)

    async def _drain(self) -> None:
        self._first_messages.drain()
        await self._fleet.drain()
        await self._calls.wait_until_idle()


def _make_access(settings: ServiceSettings, metrics: ServiceMetrics) -> Access:
    if settings.tokens is None:
        return OpenAccess()
    return TokenAccess(settings.tokens, settings.quota_file, metrics, needs_admin=settings.admin_port is not None)
