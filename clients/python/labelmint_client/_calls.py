"""The calls of a server, with sample messages read as labelmint.batches reads them."""

import grpc
import grpc.aio

from labelmint.batches import read_batch
from labelmint.v1 import service_pb2, service_pb2_grpc

_SERVICE = "/labelmint.v1.LabelMint"


def make_stub(channel: grpc.Channel | grpc.aio.Channel) -> service_pb2_grpc.LabelMintStub:
    """Make a stub whose streams give `ReceivedBatch` instead of `SampleBatch`.

    Args:
        channel: Blocking or asynchronous, and so are the stub's calls.
    """
    # Generated code has no types.
    stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
    stub.Generate = channel.unary_stream(
        f"{_SERVICE}/Generate",
        request_serializer=service_pb2.GenerateRequest.SerializeToString,
        response_deserializer=read_batch,
    )
    stub.Label = channel.stream_stream(
        f"{_SERVICE}/Label",
        request_serializer=service_pb2.LabelRequest.SerializeToString,
        response_deserializer=read_batch,
    )
    return stub
