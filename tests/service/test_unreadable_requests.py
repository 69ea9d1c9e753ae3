"""Bytes that are no message are refused like every other bad request, and the server goes on serving."""

import grpc
import numpy as np
import pytest

from labelmint.addresses import latents
from labelmint.arrays import tensor_from_array
from labelmint.v1 import service_pb2_grpc
from labelmint.v1.service_pb2 import LabelOptions, LabelRequest
from tests.service.calls import TIMEOUT_S, Failure, collect, describe_failure, make_request
from tests.serving import Serving

JUNK = b"\xff\xff\xff"


def refuse(served: Serving, method: str, *requests: bytes) -> Failure:
    """Send bytes as they are; every method can be called as a stream."""
    call = served.channel().stream_stream(
        f"/labelmint.v1.LabelMint/{method}", request_serializer=None, response_deserializer=None
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter(requests), timeout=TIMEOUT_S))
    return describe_failure(caught.value)


@pytest.mark.parametrize("method", ["ListModels", "GetModel", "Generate", "Label"])
def test_unreadable_request_is_an_invalid_argument(served: Serving, method: str) -> None:
    failure = refuse(served, method, JUNK)

    assert failure.code == "INVALID_ARGUMENT"
    assert failure.text.startswith(f"the request is 3 bytes that are no labelmint.v1.{method}Request;")
    assert failure.detail is not None
    assert failure.detail.request_id


def test_unreadable_latents_end_their_stream(served: Serving) -> None:
    z = latents(7, np.arange(2, dtype=np.uint64), 8)
    first = LabelRequest(options=LabelOptions(model="tiny"), z=tensor_from_array(z))

    assert refuse(served, "Label", first.SerializeToString(), JUNK).code == "INVALID_ARGUMENT"


def test_server_goes_on_after_an_unreadable_request(served: Serving, stub: service_pb2_grpc.LabelMintStub) -> None:
    refuse(served, "Generate", JUNK)

    assert collect(stub.Generate(make_request(), timeout=TIMEOUT_S)).indices == [0, 1, 2, 3, 4]
