"""Servers that are told to stop under eight readers, which go on at another and, later, at the same one again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint_client import Client
from tests.faults.readers import PATIENT, WAIT_S, free_port, reading
from tests.service.calls import describe_failure, make_request
from tests.service.server_process import ServerProcess, server_process, wait_for_line

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
LONGEST_DRAIN_S = 30.0
LONGEST_EXIT_S = 6.0
"""From the moment on from which a server waits for nobody: a second for its threads, and an interpreter that ends."""


def statuses(server: ServerProcess) -> Iterator[int]:
    """What health says of the model, as it changes, until the server is gone."""
    call = health_pb2_grpc.HealthStub(server.channel).Watch(
        health_pb2.HealthCheckRequest(service="tiny"), timeout=WAIT_S
    )
    try:
        yield from (answer.status for answer in call)
    except grpc.RpcError as error:
        assert describe_failure(error).code in {"UNAVAILABLE", "CANCELLED"}


def drain(server: ServerProcess) -> None:
    """Tell a server to stop; look at its health, at a stream of its own, and at its status."""
    watched = statuses(server)
    assert next(watched) == SERVING
    call = server.stub().Generate(make_request(max_accepted=None, endless=True), timeout=WAIT_S)
    indices = list(next(call).indices)
    server.signal(signal.SIGTERM)
    assert list(watched) == [NOT_SERVING]
    with pytest.raises(grpc.RpcError) as caught:
        indices.extend(index for batch in call for index in batch.indices)
    failure = describe_failure(caught.value)
    assert failure.code == "UNAVAILABLE"
    assert failure.detail is not None
    assert failure.detail.next_index == len(indices)
    assert indices == list(range(len(indices)))
    assert server.process.wait(LONGEST_DRAIN_S) == 0


def wait_until_idle(process: psutil.Process) -> None:
    """Wait until a process has had nothing to do for a second and a half, as it says itself."""
    deadline_s, before_s, num_quiet = time.monotonic() + WAIT_S, 0.0, 0
    while num_quiet < 15:
        assert time.monotonic() < deadline_s, "the server never comes to rest"
        now_s = sum(process.cpu_times()[:2])
        num_quiet, before_s = (num_quiet + 1 if now_s - before_s <= 0.01 else 0), now_s
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_drained_servers_lose_nothing_and_their_readers_go_on_elsewhere(
    tiny: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    places = [(tmp_path / str(number), free_port()) for number in range(2)]
    for folder, _ in places:
        folder.mkdir()
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for _, port in places)

    def start(number: int) -> ServerProcess:
        folder, port = places[number]
        flags = ("--bundle", str(tiny), "--port", str(port), "--grace-s", "10", "--stream-queue-batches", "2")
        return running.enter_context(server_process(folder, *flags))

    rounds = max(1, round(request.config.getoption("--fault-s")))
    with ExitStack() as running:
        serving = start(0)
        with reading(lambda _: Client(target, retry=PATIENT)) as readers:
            readers.wait_until_begun()
            for number in range(1, rounds + 1):
                successor = start(number % 2)
                drain(serving)
                serving = successor
            with Client(serving.address) as client:
                assert all(readers.finish(client)), "a stream never broke: the drain met nobody"


@pytest.mark.parametrize(("grace_s", "signals"), [(3.0, 1), (600.0, 2)], ids=["grace is over", "second signal"])
def test_reader_that_has_stopped_cannot_keep_a_server_from_ending(
    tiny: Path, tmp_path: Path, grace_s: float, signals: int
) -> None:
    with server_process(tmp_path, "--bundle", str(tiny), "--grace-s", str(grace_s)) as server:
        call = server.stub().Generate(make_request(max_accepted=None, endless=True), timeout=WAIT_S)
        next(call)  # and no more: what the server sends fills the window of the connection
        wait_until_idle(psutil.Process(server.process.pid))
        began_s = time.monotonic()
        server.signal(signal.SIGTERM)
        wait_for_line(server, "server.draining")
        for _ in range(signals - 1):
            server.signal(signal.SIGTERM)
        assert server.process.wait(LONGEST_DRAIN_S) == 0
        took_s = time.monotonic() - began_s
        assert "server.grace_over" in server.log.read_text(encoding="utf-8")
        waits_s = grace_s if signals == 1 else 0.0  # a second signal ends the grace
        assert waits_s <= took_s < waits_s + LONGEST_EXIT_S
