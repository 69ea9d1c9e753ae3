from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from labelmint.v1 import service_pb2
from labelmint_client import (
    AccessError,
    AsyncClient,
    CallCancelledError,
    Client,
    ClientError,
    DeadlineError,
    InvalidArgumentError,
    ModelChangedError,
    ModelNotFoundError,
    NumericsMismatchError,
    PreconditionError,
    ProtocolError,
    RetryPolicy,
    ScanLimitError,
    ServerBusyError,
    ServerFaultError,
    ServerUnavailableError,
    UsageError,
)
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import Fault, ScriptedServer, ScriptedServicer

Code = grpc.StatusCode

MAPPING = [
    (Code.INVALID_ARGUMENT, "seed", InvalidArgumentError),
    (Code.OUT_OF_RANGE, "start_index", InvalidArgumentError),
    (Code.NOT_FOUND, "model", ModelNotFoundError),
    (Code.FAILED_PRECONDITION, "", PreconditionError),
    (Code.FAILED_PRECONDITION, "numerics_id", NumericsMismatchError),
    (Code.FAILED_PRECONDITION, "digest", ModelChangedError),
    (Code.FAILED_PRECONDITION, "max_scanned", ScanLimitError),
    (Code.RESOURCE_EXHAUSTED, "", ServerBusyError),
    (Code.DEADLINE_EXCEEDED, "", DeadlineError),
    (Code.UNAVAILABLE, "", ServerUnavailableError),
    (Code.UNAUTHENTICATED, "", AccessError),
    (Code.PERMISSION_DENIED, "", AccessError),
    (Code.CANCELLED, "", CallCancelledError),
    (Code.UNIMPLEMENTED, "", ProtocolError),
    (Code.INTERNAL, "", ServerFaultError),
    (Code.UNKNOWN, "", ServerFaultError),
    (Code.DATA_LOSS, "", ServerFaultError),
    (Code.ALREADY_EXISTS, "", ClientError),
]


def fault(code: grpc.StatusCode, field: str) -> Fault:
    detail = service_pb2.ErrorDetail(field=field, request_id="r42")
    return Fault(code=code, details="what was got and expected", detail=detail)


@pytest.mark.parametrize(("code", "field", "expected"), MAPPING)
def test_status_and_detail_become_a_typed_error(
    client: Client, servicer: ScriptedServicer, code: grpc.StatusCode, field: str, expected: type[ClientError]
) -> None:
    servicer.faults = [fault(code, field)] * QUICK.max_attempts
    with pytest.raises(ClientError, match="what was got and expected") as caught:
        next(client.generate("m", seed=1, count=1, start_index=7))
    error = caught.value
    assert type(error) is expected
    assert (error.code, error.field, error.request_id, error.next_index) == (code, field, "r42", 7)
    assert len(servicer.requests) == (QUICK.max_attempts if code is Code.UNAVAILABLE else 1)


@pytest.mark.parametrize("method", ["list_models", "get_model"])
def test_unary_calls_raise_typed_errors_and_retry_unavailable(
    client: Client, servicer: ScriptedServicer, method: str
) -> None:
    arguments = ["m"] if method == "get_model" else []
    servicer.unary_faults = [fault(Code.UNAVAILABLE, "")]
    assert getattr(client, method)(*arguments)
    assert servicer.num_unary_calls == 2
    servicer.unary_faults = [fault(Code.NOT_FOUND, "model")]
    with pytest.raises(ModelNotFoundError) as caught:
        getattr(client, method)(*arguments)
    assert caught.value.field == "model"


async def test_async_unary_calls_raise_typed_errors_and_retry_unavailable(server: ScriptedServer) -> None:
    async with AsyncClient(server.address, retry=QUICK) as client:
        server.servicer.unary_faults = [fault(Code.UNAVAILABLE, "")]
        assert [summary.name for summary in await client.list_models()] == ["scripted"]
        server.servicer.unary_faults = [fault(Code.NOT_FOUND, "model")]
        with pytest.raises(ModelNotFoundError):
            await client.get_model("other")


def test_malformed_detail_is_ignored(client: Client, servicer: ScriptedServicer) -> None:
    class Broken:
        def SerializeToString(self) -> bytes:  # noqa: N802  # protobuf's name
            return b"\xff\xff\xff"

    broken: Any = Broken()
    servicer.faults = [Fault(code=Code.INVALID_ARGUMENT, details="seed is missing", detail=broken)]
    with pytest.raises(InvalidArgumentError, match="seed is missing"):
        next(client.generate("m", seed=1, count=1))


def test_message_over_the_limit_says_which_limits_to_change(server: ScriptedServer) -> None:
    server.servicer.batch_size = 400
    with (
        Client(server.address, retry=QUICK, max_receive_bytes=20_000) as client,
        pytest.raises(InvalidArgumentError, match="max_receive_bytes"),
    ):
        next(client.generate("m", seed=1, count=400))


def test_max_message_bytes_beyond_the_channel_is_refused_before_sending(server: ScriptedServer) -> None:
    with (
        Client(server.address, max_receive_bytes=1 << 20) as client,
        pytest.raises(InvalidArgumentError, match="larger max_receive_bytes") as caught,
    ):
        client.generate("m", seed=1, count=1, max_message_bytes=2 << 20)
    assert caught.value.field == "max_message_bytes"


@pytest.mark.parametrize(("accepted", "asked"), [(1 << 20, 1 << 20), (4 << 20, 0), (64 << 20, 0)])
def test_channel_that_accepts_less_than_the_default_asks_for_less(
    server: ScriptedServer, accepted: int, asked: int
) -> None:
    with Client(server.address, max_receive_bytes=accepted) as client:
        list(client.generate("m", seed=1, count=1))

    assert server.servicer.requests[0].output.max_message_bytes == asked


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("num_bytes", [-1, 0, 2**31, 1e6])
def test_size_that_grpc_cannot_take_is_refused_at_once(kind: type[Client | AsyncClient], num_bytes: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        kind("localhost:1", max_receive_bytes=num_bytes)
    assert caught.value.field == "max_receive_bytes"


def test_no_server_at_the_address_says_so(closed_address: str) -> None:
    text = rf"no answer from {closed_address} after 3 attempts.*labelmint-serve"
    with Client(closed_address, retry=QUICK) as client, pytest.raises(ServerUnavailableError, match=text):
        client.list_models()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":50051",
        "localhost:port",
        "localhost:0",
        "localhost:70000",
        "localhost:²",
        "http://localhost:1",
        7,
    ],
)
def test_bad_address_is_refused_at_once(address: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="expected") as caught:
        Client(address)
    assert caught.value.field == "address"


@pytest.mark.parametrize("address", ["\udcff:50051", "dns:///\udcff:50051"])
def test_address_of_half_a_character_is_refused_at_once(address: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be sent") as caught:
        Client(address)
    assert caught.value.field == "address"


@pytest.mark.parametrize("address", ["[::1]:50051", "dns:///labels.example:50051", "unix:/tmp/labelmint.sock"])
def test_addresses_that_grpc_knows_are_accepted(address: str) -> None:
    assert Client(address).address == address


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "count"),
        ({"count": 1, "endless": True}, "count"),
        ({"count": 0}, "count"),
        ({"count": 2**64}, "count"),
        ({"count": 1.5}, "count"),
        ({"count": np.array([1])}, "count"),
        ({"count": 1, "seed": -1}, "seed"),
        ({"count": 1, "seed": 2**64}, "seed"),
        ({"count": 1, "seed": "1"}, "seed"),
        ({"count": 1, "start_index": -1}, "start_index"),
        ({"count": 1, "end_index": 2**64}, "end_index"),
        ({"count": 1, "num_shards": 0}, "num_shards"),
        ({"count": 1, "shard_index": -2}, "shard_index"),
        ({"count": 1, "truncation_psi": "low"}, "truncation_psi"),
        ({"count": 1, "truncation_psi": 10**400}, "truncation_psi"),
        ({"count": 1, "class_index": -1}, "class_index"),
        ({"count": 1, "max_uncertainty": None, "max_uncertainty_quantile": "x"}, "max_uncertainty_quantile"),
        ({"count": 1, "min_class_areas": {"hair": "x"}}, "min_class_areas['hair']"),
        ({"count": 1, "min_class_areas": {3: 0.1}}, "min_class_areas"),
        ({"count": 1, "max_scanned": 0}, "max_scanned"),
        ({"count": 1, "fields": ["image", "depth"]}, "fields"),
        ({"count": 1, "fields": "image"}, "fields"),
        ({"count": 1, "fields": []}, "fields"),
        ({"count": 1, "image_codec": "webp"}, "image_codec"),
        ({"count": 1, "mask_codec": "jpeg"}, "mask_codec"),
        ({"count": 1, "mask_codec": ["raw"]}, "mask_codec"),
        ({"count": 1, "jpeg_quality": 101}, "jpeg_quality"),
        ({"count": 1, "jpeg_subsampling": "411"}, "jpeg_subsampling"),
        ({"count": 1, "max_message_bytes": 0}, "max_message_bytes"),
        ({"count": 1, "model": 3}, "model"),
        ({"count": 1, "model": "\ud800"}, "model"),
        ({"count": 1, "digest": b"x"}, "digest"),
    ],
)
def test_argument_that_cannot_be_sent_is_refused_by_name(
    client: Client, servicer: ScriptedServicer, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.generate(**{"model": "m", "seed": 1, **arguments})
    assert caught.value.field == field
    assert not servicer.requests


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "latents"),
        ({"z": [[1.0]], "w": [[1.0]]}, "latents"),
        ({"z": [1.0, 2.0]}, "z"),
        ({"w": [[]]}, "w"),
        ({"w_plus": [[1.0]]}, "w_plus"),
        ({"z": [["a"]]}, "z"),
        ({"z": [[1.0]], "class_indices": [1, 2]}, "class_indices"),
        ({"z": [[1.0]], "class_indices": []}, "class_indices"),
    ],
)
def test_latents_that_cannot_be_sent_are_refused_by_name(client: Client, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.label("m", **arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_attempts": 0},
        {"connect_attempts": 0},
        {"max_connect_s": -1},
        {"max_connect_s": float("inf")},
        {"initial_backoff_s": -1},
        {"max_backoff_s": 0.1},
        {"max_backoff_s": float("inf")},
        {"multiplier": 0.5},
        {"jitter": 1.5},
        {"jitter": float("nan")},
        {"max_retry_after_s": -1},
        {"max_retry_after_s": float("inf")},
    ],
)
def test_impossible_retry_policy_is_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RetryPolicy(**arguments)
    assert caught.value.field == next(iter(arguments))


def test_closed_client_says_so(client: Client) -> None:
    stream = client.generate("m", seed=1, endless=True)
    next(stream)
    client.close()
    with pytest.raises(UsageError, match="closed"):
        list(stream)
    with pytest.raises(UsageError, match="closed"):
        client.list_models()


async def test_closed_async_client_says_so(server: ScriptedServer) -> None:
    client = AsyncClient(server.address, retry=QUICK)
    stream = client.generate("m", seed=1, endless=True)
    await anext(stream)
    await client.close()
    with pytest.raises(UsageError, match="closed"):
        [_ async for _ in stream]
