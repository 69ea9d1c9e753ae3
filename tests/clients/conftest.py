from __future__ import annotations

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
