"""The calls that bring samples, with messages read as labelmint.batches reads them."""

from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio

from labelmint.batches import read_batch
from labelmint.v1 import service_pb2
from labelmint.wire import SERVICE_NAME
from labelmint_client._held_back_call import HeldBackCall
from labelmint_client._security import Metadata
from labelmint_client._shared_ring import SharedRing

# Any in this module: grpc has no public type for a call.


def start_generate(
    channel: grpc.Channel | grpc.aio.Channel,
    request: service_pb2.GenerateRequest,
    shared_memory_bytes: int | None,
    metadata: Metadata,
) -> Any:
    """Start a Generate call.

    Args:
        channel: Blocking or asynchronous, and so is the call.
        request: What to generate.
        shared_memory_bytes: Size of a ring for RAW arrays; None lets them travel in the messages.
        metadata: Of the call: token and trace.

    Raises:
        InvalidArgumentError: There is no such memory here.
    """
    read = read_batch
    if shared_memory_bytes is not None:
        # Each call has a ring of its own: a server may still write into that of a call that broke.
        ring = SharedRing(shared_memory_bytes)
        request.output.shared_memory.CopyFrom(ring.request())
        read = ring.read
    generate = channel.unary_stream(
        f"/{SERVICE_NAME}/Generate",
        request_serializer=service_pb2.GenerateRequest.SerializeToString,
        response_deserializer=read,
    )
    return generate(request, metadata=metadata)


def start_label(
    channel: grpc.Channel | grpc.aio.Channel,
    messages: Iterator[service_pb2.LabelRequest],
    metadata: Metadata,
) -> Any:
    """Start a Label call.

    Args:
        channel: Blocking or asynchronous, and so is the call.
        messages: The latents.
        metadata: Of the call: token and trace.
    """
    label: Any = channel.stream_stream(
        f"/{SERVICE_NAME}/Label",
        request_serializer=service_pb2.LabelRequest.SerializeToString,
        response_deserializer=read_batch,
    )
    if isinstance(channel, grpc.aio.Channel):
        return HeldBackCall(lambda held_back: label(held_back, metadata=metadata), messages)
    return label(messages, metadata=metadata)
