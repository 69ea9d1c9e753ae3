"""Retry hints of a server: typed, waited for, and said clearly where waiting is no help."""

from __future__ import annotations

import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from labelmint_client import (
    AsyncClient,
    Client,
    QuotaExceededError,
    RetryPolicy,
    ServerBusyError,
    ServerUnavailableError,
)
from labelmint_client._retry_hint import RetryHint, read_retry_hint
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import Fault, ScriptedServer, ScriptedServicer

HOUR_S = 3600.0
BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED


def busy(retry_after_s: float | None, limit: str = "", code: grpc.StatusCode = BUSY, after_messages: int = 0) -> Fault:
    return Fault(
        code=code, details="16 of 16 wait", retry_after_s=retry_after_s, limit=limit, after_messages=after_messages
    )


def test_stream_waits_as_long_as_a_busy_server_says_and_goes_on(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [busy(0.4), busy(0.4, after_messages=1)]
    began_s = time.monotonic()
    indices = [sample.index for sample in client.generate("m", seed=1, count=6)]

    assert indices == list(range(6))
    assert [request.start_index for request in servicer.requests] == [0, 0, 2]
    assert time.monotonic() - began_s >= 0.8


async def test_async_stream_waits_as_long_too(server: ScriptedServer) -> None:
    server.servicer.faults = [busy(0.4)]
    began_s = time.monotonic()
    async with AsyncClient(server.address, retry=QUICK) as client:
        indices = [sample.index async for sample in client.generate("m", seed=1, count=2)]

    assert indices == [0, 1]
    assert time.monotonic() - began_s >= 0.4


def test_unary_call_waits_as_long_too(client: Client, servicer: ScriptedServicer) -> None:
    servicer.unary_faults = [busy(0.2)]
    began_s = time.monotonic()

    assert client.list_models()
    assert time.monotonic() - began_s >= 0.2


def test_wait_of_the_client_comes_after_the_hint_and_grows(server: ScriptedServer) -> None:
    server.servicer.faults = [busy(0.05)] * 3
    began_s = time.monotonic()
    with Client(server.address, retry=RetryPolicy(initial_backoff_s=0.05, multiplier=2.0, jitter=0.0)) as client:
        assert [sample.index for sample in client.generate("m", seed=1, count=1)] == [0]

    assert time.monotonic() - began_s >= 3 * 0.05 + 0.05 + 0.1 + 0.2


def test_server_that_stays_busy_is_asked_as_often_as_the_policy_says(
    client: Client, servicer: ScriptedServicer
) -> None:
    servicer.faults = [busy(0.01)] * 10
    with pytest.raises(
        ServerBusyError, match=r"16 of 16 wait \(after 4 attempts; another may succeed in 0.0 s\)"
    ) as caught:
        next(client.generate("m", seed=1, count=1))

    assert caught.value.retry_after_s == pytest.approx(0.01)
    assert type(caught.value) is ServerBusyError
    assert len(servicer.requests) == QUICK.max_attempts


def test_quota_of_the_day_is_an_error_at_once_that_says_when_it_ends(
    client: Client, servicer: ScriptedServicer
) -> None:
    servicer.faults = [busy(7 * HOUR_S, limit="samples_per_day: used up", after_messages=1)]
    stream = client.generate("m", seed=1, count=6)
    with pytest.raises(QuotaExceededError, match=r"after 1 attempt; another may succeed in 7\.0 h") as caught:
        list(stream)

    assert caught.value.retry_after_s == 7 * HOUR_S
    assert caught.value.next_index == 2
    assert len(servicer.requests) == 1


def test_longest_wait_is_the_policy_s(server: ScriptedServer) -> None:
    server.servicer.faults = [busy(0.5)]
    with (
        Client(server.address, retry=RetryPolicy(max_retry_after_s=0.4)) as client,
        pytest.raises(ServerBusyError) as caught,
    ):
        next(client.generate("m", seed=1, count=1))

    assert caught.value.retry_after_s == 0.5
    assert len(server.servicer.requests) == 1


def test_busy_server_without_a_hint_is_not_asked_again(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [busy(None)]
    with pytest.raises(ServerBusyError) as caught:
        next(client.generate("m", seed=1, count=1))

    assert caught.value.retry_after_s is None
    assert len(servicer.requests) == 1


def test_hint_of_an_unavailable_server_is_an_attribute_too(client: Client, servicer: ScriptedServicer) -> None:
    servicer.faults = [busy(0.02, code=grpc.StatusCode.UNAVAILABLE)] * 10
    with pytest.raises(ServerUnavailableError) as caught:
        next(client.generate("m", seed=1, count=1))

    assert caught.value.retry_after_s == pytest.approx(0.02)


@given(
    nanoseconds=st.integers(0, 10**15),
    limits=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=3),
    message=st.text(st.characters(codec="utf-8")),
)
def test_hints_are_read_as_google_s_own_messages_have_them(nanoseconds: int, limits: list[str], message: str) -> None:
    status = status_pb2.Status(code=8, message=message)
    status.details.add().Pack(error_details_pb2.DebugInfo(detail=message))
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(nanoseconds)
    status.details.add().Pack(retry)
    violations = [error_details_pb2.QuotaFailure.Violation(subject="one", description=limit) for limit in limits]
    status.details.add().Pack(error_details_pb2.QuotaFailure(violations=violations))
    hint = read_retry_hint([("other", "x"), ("grpc-status-details-bin", status.SerializeToString())])

    assert hint.retry_after_s == pytest.approx(nanoseconds / 1e9)
    assert hint.limits == tuple(limits)


@given(data=st.binary(max_size=64))
def test_bytes_that_are_no_status_are_no_hint_and_no_error(data: bytes) -> None:
    hint = read_retry_hint([("grpc-status-details-bin", data)])
    try:
        details = status_pb2.Status.FromString(data).details
    except Exception:  # noqa: BLE001 - whatever google's reader finds wrong
        details = []
    if not details:
        assert hint == RetryHint()


def test_no_metadata_is_no_hint() -> None:
    assert read_retry_hint(None) == RetryHint()
