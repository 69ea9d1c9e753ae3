"""The servicer: translates calls into streams and back. Nothing here decides anything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from labelmint.v1 import service_pb2
from labelmint.wire import SERVICE_NAME
from labelmint_service.access.control import Caller
from labelmint_service.streams.sampling import SamplingService
from labelmint_service.wire.call_server import ServiceMethods
from labelmint_service.wire.calls import Call, CallAnswerer, Context, parsed
from labelmint_service.wire.version_messages import summary_message, version_messages


class LabelMintServicer:
    """Answers the calls of labelmint.v1.LabelMint.

    Streams come from below already serialised, so the handlers pass their bytes through. Requests come as bytes and are
    parsed here, so that one that cannot be parsed is refused as every other bad one is. Every call is read as a stream:
    where a method takes one message, grpc would never end a call that sends none.

    Args:
        sampling: What does the work.
        calls: What is the same for all calls.
    """

    def __init__(self, sampling: SamplingService, calls: CallAnswerer) -> None:
        self._sampling = sampling
        self._calls = calls

    def methods(self) -> ServiceMethods:
        """What a server registers."""
        messages = service_pb2
        return ServiceMethods(
            service=SERVICE_NAME,
            handlers={
                "ListModels": grpc.stream_unary_rpc_method_handler(
                    self.list_models,
                    response_serializer=messages.ListModelsResponse.SerializeToString,
                ),
                "GetModel": grpc.stream_unary_rpc_method_handler(
                    self.get_model,
                    response_serializer=messages.GetModelResponse.SerializeToString,
                ),
                "Generate": grpc.stream_stream_rpc_method_handler(self.generate),
                "Label": grpc.stream_stream_rpc_method_handler(self.label),
            },
        )

    async def list_models(self, requests: AsyncIterator[bytes], context: Context) -> service_pb2.ListModelsResponse:
        """Name the models, those that the caller may see, also where no version is ready."""

        async def work(_call: Call, caller: Caller) -> service_pb2.ListModelsResponse:
            await self._calls.receive(service_pb2.ListModelsRequest, requests)
            catalog = self._sampling.catalog.limited_to(caller.models)
            return service_pb2.ListModelsResponse(models=[summary_message(catalog, name) for name in catalog.names])

        return await self._calls.answer(SERVICE_NAME, "ListModels", context, work)

    async def get_model(self, requests: AsyncIterator[bytes], context: Context) -> service_pb2.GetModelResponse:
        """Describe one model."""

        async def work(_call: Call, caller: Caller) -> service_pb2.GetModelResponse:
            request = await self._calls.receive(service_pb2.GetModelRequest, requests)
            catalog = self._sampling.catalog.limited_to(caller.models)
            model = catalog.find(request.model, field="model")[0]
            return service_pb2.GetModelResponse(
                manifest=model.bundle.manifest,
                numerics_id=model.numerics.id,
                numerics=model.numerics.document,
                version=next(one.name for one in catalog.versions(model.name) if one.model is model),
                versions=version_messages(catalog, model.name),
            )

        return await self._calls.answer(SERVICE_NAME, "GetModel", context, work)

    async def generate(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Stream the samples of some addresses."""

        async def work(call: Call, caller: Caller) -> None:
            request = await self._calls.receive(service_pb2.GenerateRequest, requests)
            stream = self._sampling.open_generate(request, call.stream_call(caller))
            async with stream:
                async for message in stream.messages():
                    await context.write(message)

        await self._calls.answer(SERVICE_NAME, "Generate", context, work)

    async def label(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Stream the samples of the caller's latents."""

        async def work(call: Call, caller: Caller) -> None:
            latents = parsed(service_pb2.LabelRequest, requests)
            session = await self._sampling.open_label(latents, call.stream_call(caller))
            async with session:
                async for message in session.messages():
                    await context.write(message)

        await self._calls.answer(SERVICE_NAME, "Label", context, work)
