"""Health and reflection under callers who read nothing or send what is no request: everybody else learns the truth."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.frames import HEALTH, WATCH, RawConnection, request_headers, watch_without_reading
from tests.service.calls import TIMEOUT_S
from tests.service.server_process import server_process
from tests.serving import Serving, serving

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
OPEN_METHODS = (HEALTH, WATCH, REFLECTION)
Status = health_pb2.HealthCheckResponse


def check(served: Serving, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(served.channel())
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status
    return status


def test_server_ends_in_time_while_watchers_do_not_read(bundles: dict[str, Path], tmp_path: Path) -> None:
    with server_process(tmp_path, "--bundle", str(bundles["tiny"]), "--grace-s", "1") as server:
        stub = health_pb2_grpc.HealthStub(server.channel)
        with watch_without_reading(server.address, ""), watch_without_reading(server.address, "tiny"):
            other = stub.Watch(health_pb2.HealthCheckRequest(service="tiny"), timeout=TIMEOUT_S)
            assert next(other).status == Status.SERVING
            server.signal(signal.SIGTERM)
            assert next(other).status == Status.NOT_SERVING
            assert server.wait() == 0
        assert "server.still_at_work" not in server.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def impatient(bundles: dict[str, Path]) -> Iterator[Serving]:
    with serving([bundles["tiny"]], first_message_timeout_s=0.5) as running:
        yield running


def refusal(served: Serving, method: str, *requests: bytes) -> grpc.RpcError:
    call = served.channel().stream_stream(method, request_serializer=None, response_deserializer=None)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter(requests), timeout=TIMEOUT_S))
    return caught.value


@pytest.mark.parametrize("method", OPEN_METHODS)
def test_bytes_that_are_no_request_are_refused_without_a_trace_in_the_log(
    impatient: Serving, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with caplog.at_level(logging.WARNING):
        error = refusal(impatient, method, b"\xff\xff\xff")

    assert (error.code(), str(error.details())[:32]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the request is 3 bytes that are ",
    )
    assert not caplog.records


@pytest.mark.parametrize("method", OPEN_METHODS[:2])
@pytest.mark.parametrize(
    ("requests", "code"),
    [
        ((), grpc.StatusCode.INVALID_ARGUMENT),
        ((health_pb2.HealthCheckRequest(service="x" * 513).SerializeToString(),), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["none", "long name"],
)
def test_health_of_nothing_sensible_is_refused(
    impatient: Serving, method: str, requests: tuple[bytes, ...], code: grpc.StatusCode
) -> None:
    assert refusal(impatient, method, *requests).code() == code


def test_health_call_whose_request_does_not_come_is_ended(impatient: Serving) -> None:
    with RawConnection(impatient.address) as connection:
        connection.send(connection.headers(1, request_headers()))
        assert connection.ending(1) == f"grpc-status {grpc.StatusCode.DEADLINE_EXCEEDED.value[0]}"


def test_health_does_not_list_what_there_is(impatient: Serving) -> None:
    assert refusal(impatient, "/grpc.health.v1.Health/List", b"").code() == grpc.StatusCode.UNIMPLEMENTED


def test_unknown_names_are_not_found_and_can_be_watched(impatient: Serving) -> None:
    stub = health_pb2_grpc.HealthStub(impatient.channel())
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        check(impatient, "nobody")

    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert next(watch).status == Status.SERVICE_UNKNOWN
    watch.cancel()
