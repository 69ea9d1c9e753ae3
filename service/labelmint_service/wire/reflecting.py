"""Reflection: which services and messages there are, for tools such as grpcurl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from labelmint_service.wire.call_server import ServiceMethods
from labelmint_service.wire.calls import Context, parsed
from labelmint_service.wire.open_calls import answer_openly


def reflection_methods(names: Sequence[str]) -> ServiceMethods:
    """What a server registers.

    Args:
        names: Of the services, besides reflection itself.
    """
    library = reflection.aio  # type: ignore[attr-defined]  # the stubs lack it
    servicer = library.ReflectionServicer((*names, reflection.SERVICE_NAME))

    async def info(requests: AsyncIterator[bytes], context: Context) -> None:
        async def work() -> None:
            asked = parsed(reflection_pb2.ServerReflectionRequest, requests)
            async for answer in servicer.ServerReflectionInfo(asked, context):
                await context.write(answer.SerializeToString())

        await answer_openly(context, work)

    return ServiceMethods(
        service=reflection.SERVICE_NAME,
        handlers={"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(info)},
    )
