"""The metrics over HTTP, for whoever scrapes them, within bounds: strangers may reach the port too."""

from __future__ import annotations

import contextlib
import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any, ClassVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from labelmint_service.errors import StartError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.open_files import METRICS_CONNECTIONS

_SILENCE_S = 5.0


class MetricsEndpoint:
    """Serves a registry over HTTP, each connection in a thread of its own.

    Args:
        metrics: What to serve.
        host: Address to listen on.
        port: Port; 0 lets the system choose.

    Attributes:
        url: Where the metrics are.

    Raises:
        StartError: The port cannot be taken.
    """

    def __init__(self, metrics: ServiceMetrics, host: str, port: int) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            server_class: type[_BoundedServer] = type("Server", (_BoundedServer,), {"address_family": family})
            self._server: _BoundedServer = make_server(
                str(address[0]), port, make_wsgi_app(metrics.registry), server_class, handler_class=_Handler
            )
        except OSError as error:
            raise StartError(
                f"metrics cannot listen on {host}:{port} ({error.strerror}); choose another --metrics-port, 0 for any, "
                "or --no-metrics",
                field="metrics_port",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(WSGIRequestHandler):
    """Logs nothing, and leaves who is silent."""

    timeout: ClassVar[float] = _SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing."""


class _BoundedServer(ThreadingMixIn, WSGIServer):
    """Has so many connections open at a time. A new one takes the place of the oldest: a scrape takes milliseconds."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 4 * METRICS_CONNECTIONS
    """Connections that are not accepted yet. A burst fills the library's five, which costs a scrape a second a try."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a connection."""
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > METRICS_CONNECTIONS else None
        if oldest is not None:
            self._forget(oldest)
            with contextlib.suppress(OSError):  # it may just have ended
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._forget(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whatever comes from a stranger is no event of ours."""

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)
