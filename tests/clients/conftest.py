from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmint_client import Client, RetryPolicy
from labelmint_client._commands.local_server import LocalServer
from tests.clients.command_line import Run
from tests.clients.scripted_server import ScriptedServer, ScriptedServicer
from tests.tiny_bundle import write_tiny_bundle

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


@pytest.fixture(scope="module", name="bundle")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module", name="address")
def _address(bundle: Path) -> Iterator[str]:
    """Of a real server of the tiny bundle."""
    server = LocalServer(["--bundle", str(bundle)], start_timeout_s=120, stop_timeout_s=60)
    try:
        yield server.start()
    finally:
        assert server.stop() == 0


@pytest.fixture(name="run")
def _run(address: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, with that server."""
    return Run(address, capsys)
