"""Hostile callers: the others are served all the while, and the server is afterwards what it was before.

`--fault-s` says how long each flood takes; `make test-faults` asks for more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint_client import Client
from labelmint_service.open_files import allow_open_files
from tests.faults.floods import FLOODS, NUM_ATTACKERS, attack
from tests.frames import DATA, END_STREAM, GENERATE, HEALTH, RawConnection, frame, message, request_headers
from tests.service.calls import TIMEOUT_S, collect, make_request
from tests.service.server_process import ServerProcess, server_process, wait_for_files

SERVING = health_pb2.HealthCheckResponse.SERVING
NUM_CALLS, REQUEST_BYTES = 16, 2**20
MOST_GROWTH_BYTES = 32 * 2**20 + NUM_ATTACKERS * NUM_CALLS * REQUEST_BYTES
"""Of the server under a flood: each attacker may have so many requests under way."""
NUM_CONNECTIONS = 1000
MEASURED_S = 5.0
"""From this length on, times mean something."""
LONGEST_CHECK_S = 2.0
MOST_STREAMS = 64
"""Of a server's model; an attacker without a token may have all but ours, which are due their turns."""
BRIEF = ("rapid reset", "calls without messages", "endless continuation", "settings", "noise", "half open")
"""Floods of the default suite; `make test-faults` runs all."""


@pytest.fixture(scope="module")
def flooded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ["--bundle", str(tiny), "--handshake-timeout-s", "2", "--first-message-timeout-s", "2"]
    flags += ["--max-connection-calls", str(NUM_CALLS), "--max-request-bytes", str(REQUEST_BYTES)]
    with server_process(tmp_path_factory.mktemp("flooded"), *flags, "--log-level", "error") as running:
        yield running


def health_latencies(server: ServerProcess, seconds: float) -> list[float]:
    """Seconds that health checks took, one after the other, all of them answered."""
    stub = health_pb2_grpc.HealthStub(server.channel)
    latencies: list[float] = []
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s or not latencies:
        began_s = time.monotonic()
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == SERVING
        latencies.append(time.monotonic() - began_s)
        time.sleep(0.005)
    return latencies


def measure_rate(address: str) -> float:
    """Samples a second of one reader."""
    with Client(address) as client:
        began_s = time.monotonic()
        count = sum(1 for _ in client.generate("tiny", seed=4, count=500))
        return count / (time.monotonic() - began_s)


def read_until(address: str, has_begun: threading.Event, is_over: threading.Event) -> int:
    """Read as a sound client does; every sample comes, in order."""
    count = 0
    with Client(address) as client, client.generate("tiny", seed=3, endless=True) as stream:
        for sample in stream:
            assert sample.index == count
            count += 1
            has_begun.set()
            if is_over.is_set():
                assert stream.num_reconnects == 0
                return count
    raise AssertionError("an endless stream ended")


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(
    "name", [name if name in BRIEF else pytest.param(name, marks=pytest.mark.faults) for name in FLOODS]
)
def test_flood_stops_nobody_and_leaves_nothing(
    flooded: ServerProcess, request: pytest.FixtureRequest, name: str
) -> None:
    seconds = request.config.getoption("--fault-s")
    process = psutil.Process(flooded.process.pid)
    before = collect(flooded.stub().Generate(make_request(), timeout=TIMEOUT_S)).arrays
    num_bytes, num_files = process.memory_info().rss, process.num_fds()
    undisturbed = measure_rate(flooded.address) if seconds >= MEASURED_S else 0.0
    has_begun, is_over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(NUM_ATTACKERS + 1) as pool:
        try:
            reading = pool.submit(read_until, flooded.address, has_begun, is_over)
            assert has_begun.wait(TIMEOUT_S)
            attackers = [pool.submit(attack, flooded.address, FLOODS[name], is_over) for _ in range(NUM_ATTACKERS)]
            latencies = health_latencies(flooded, seconds)
            grown = process.memory_info().rss - num_bytes
        finally:
            is_over.set()
        connections = sum(future.result() for future in attackers)
        num_samples = reading.result()
    p99 = float(np.percentile(latencies, 99))
    print(f"{name}: {connections} connections, {num_samples / seconds:.0f} samples/s, health p99 {p99 * 1e3:.0f} ms")
    assert grown < MOST_GROWTH_BYTES, f"the server grew by {grown / 2**20:.0f} MiB"
    wait_for_files(process, num_files)
    after = collect(flooded.stub().Generate(make_request(), timeout=TIMEOUT_S)).arrays
    assert {field: array.tobytes() for field, array in after.items()} == {
        field: array.tobytes() for field, array in before.items()
    }
    if seconds >= MEASURED_S:
        assert p99 < LONGEST_CHECK_S
        assert num_samples / seconds >= undisturbed / (2 * (MOST_STREAMS + 1)), f"{undisturbed:.0f} samples/s before"


def test_floods_left_no_error_in_the_log(flooded: ServerProcess) -> None:
    lines = flooded.log.read_text(encoding="utf-8").splitlines()
    # grpc's own lines begin with a letter and the time; ours would be an error, and so would a trace of Python's.
    assert not [line for line in lines if not line.startswith(("E", "W", "I")) or "Traceback" in line]
    assert flooded.process.poll() is None


def call(connection: RawConnection, path: str, payload: bytes) -> None:
    body = frame(DATA, END_STREAM, 1, message(payload))
    connection.send(connection.headers(1, request_headers(path)), body)


def test_thousand_connections_are_served_or_refused_and_then_gone(tiny: Path, tmp_path: Path) -> None:
    allow_open_files(2 * NUM_CONNECTIONS)
    flags = ("--bundle", str(tiny), "--max-connections", str(NUM_CONNECTIONS + 50), "--log-level", "error")
    with server_process(tmp_path, *flags) as server:
        process = psutil.Process(server.process.pid)
        collect(server.stub().Generate(make_request(), timeout=TIMEOUT_S))
        num_files = process.num_fds()
        connections = [RawConnection(server.address) for _ in range(NUM_CONNECTIONS)]
        assert max(health_latencies(server, 0.0)) < TIMEOUT_S, "idle connections keep a health check waiting"
        half = NUM_CONNECTIONS // 2
        for connection in connections[:half]:
            call(connection, GENERATE, make_request(max_accepted=1).SerializeToString())
        for connection in connections[half:]:
            call(connection, HEALTH, b"")
        endings = [connection.ending(1) for connection in connections]
        for connection in connections:
            connection.socket.close()
        assert set(endings[:half]) <= {"grpc-status 0", "grpc-status 8"}
        assert set(endings[half:]) == {"grpc-status 0"}
        wait_for_files(process, num_files)
        assert collect(server.stub().Generate(make_request(), timeout=TIMEOUT_S)).indices == [0, 1, 2, 3, 4]
        assert not server.log.read_text(encoding="utf-8")
