"""The calls of a server, with sample messages read as labelmint.batches reads them."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from labelmint.batches import ReceivedBatch, read_batch
from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client._shared_ring import SharedRing

_SERVICE = "/labelmint.v1.LabelMint"


def make_stub(channel: grpc.Channel | grpc.aio.Channel) -> service_pb2_grpc.LabelMintStub:
    """Make a stub whose streams give `ReceivedBatch` instead of `SampleBatch`.

    Args:
        channel: Blocking or asynchronous, and so are the stub's calls.
    """
    # Generated code has no types.
    stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
    stub.Generate = _generate(channel, read_batch)
    stub.Label = channel.stream_stream(
        f"{_SERVICE}/Label",
        request_serializer=service_pb2.LabelRequest.SerializeToString,
        response_deserializer=read_batch,
    )
    return stub


def start_generate(
    channel: grpc.Channel | grpc.aio.Channel,
    request: service_pb2.GenerateRequest,
    shared_memory_bytes: int | None,
    metadata: Sequence[tuple[str, str]] | None,
) -> Any:  # Any: grpc has no public type for a call
    """Start a Generate call.

    Args:
        channel: Blocking or asynchronous, and so is the call.
        request: What to generate.
        shared_memory_bytes: Size of a ring for RAW arrays; None lets them travel in the messages.
        metadata: Of the call: the caller's token.

    Raises:
        InvalidArgumentError: There is no such memory here.
    """
    if shared_memory_bytes is None:
        return _generate(channel, read_batch)(request, metadata=metadata)
    # Each call has a ring of its own: a server may still write into that of a call that broke.
    ring = SharedRing(shared_memory_bytes)
    request.output.shared_memory.CopyFrom(ring.request())
    return _generate(channel, ring.read)(request, metadata=metadata)


def _generate(channel: grpc.Channel | grpc.aio.Channel, read: Callable[[bytes], ReceivedBatch]) -> Any:  # Any: as above
    return channel.unary_stream(
        f"{_SERVICE}/Generate",
        request_serializer=service_pb2.GenerateRequest.SerializeToString,
        response_deserializer=read,
    )
