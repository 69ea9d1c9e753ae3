from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from labelmint_client import Client, RetryPolicy
from tests.clients.scripted_server import ScriptedServer, ScriptedServicer

QUICK = RetryPolicy(max_attempts=4, connect_attempts=3, initial_backoff_s=0.01, max_backoff_s=0.05)


@pytest.fixture(name="server")
def _server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture(name="servicer")
def _servicer(server: ScriptedServer) -> ScriptedServicer:
    return server.servicer


@pytest.fixture(name="client")
def _client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.address, retry=QUICK) as client:
        yield client


@pytest.fixture(name="closed_address")
def _closed_address() -> Iterator[str]:
    """An address where nobody listens, and where nobody else can begin to: the port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"
