"""Listening: ports for gRPC, with TLS or without."""

from __future__ import annotations

import logging
import socket

import grpc

from labelmint.hosts import is_loopback
from labelmint.wire import MAX_FRAME_BYTES
from labelmint_service.access.certificates import CertificateFiles, Certificates
from labelmint_service.errors import StartError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.settings import ServiceSettings
from labelmint_service.structured_logs import log_event
from labelmint_service.wire.call_server import CallServer

_log = logging.getLogger(__name__)
_MAX_READ_BYTES = 2**16
"""Of a connection at a time."""


def listen(
    server: CallServer, settings: ServiceSettings, metrics: ServiceMetrics, *, host: str, port: int, name: str = ""
) -> str:
    """Let a server listen.

    Args:
        server: It; not started yet.
        settings: Whether to use TLS, and with which files.
        metrics: Where to count.
        host: Where to listen.
        port: Port; 0 for any.
        name: First part of the settings' names, for errors: "admin" of "admin_port".

    Returns:
        The address.

    Raises:
        StartError: The port cannot be taken, or a certificate cannot be used.
    """
    wanted = join_address(host, port)
    prefix = f"{name}-" if name else ""
    credentials = _server_credentials(settings, metrics)
    if credentials is None and not is_loopback(host):
        log_event(
            _log,
            logging.WARNING,
            "server.plaintext",
            address=wanted,
            message="connections are not encrypted and others may reach them; give tls_certificate and tls_key, or "
            "listen on loopback",
        )
    try:
        taken = server.add_insecure_port(wanted) if credentials is None else server.add_secure_port(wanted, credentials)
    except RuntimeError as error:  # what grpc raises when it cannot bind
        raise StartError(
            f"cannot listen on {wanted}{_reason(host, port)}; stop what uses it, or choose another --{prefix}port (0 "
            f"for any) or --{prefix}host",
            field=f"{prefix}port".replace("-", "_"),
        ) from error
    return join_address(host, taken)


def _reason(host: str, port: int) -> str:
    """Why a port cannot be taken, which grpc does not tell."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as trial:
                trial.bind(address)
    except OSError as error:
        return f" ({error.strerror or error})"
    return ""


def channel_options(settings: ServiceSettings, *, max_connections: int) -> list[tuple[str, int]]:
    """Options of a server."""
    return [
        ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent sharer
        # Without it a caller that sends without a pause has buffers of its own that grow for as long as it does.
        ("grpc.experimental.tcp_max_read_buffer_size", _MAX_READ_BYTES),
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),  # each request states its own limit
        ("grpc.http2.max_frame_size", MAX_FRAME_BYTES),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        # grpcio 1.85 never starts the timer of the line above; without this one a silent peer stays for a minute.
        ("grpc.http2.ping_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_timeout_s * 1000)),
        ("grpc.max_connection_idle_ms", int(settings.connection_idle_s * 1000)),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_concurrent_streams", settings.max_connection_calls),
    ]


def join_address(host: str, port: int) -> str:
    """Write host and port as one."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
