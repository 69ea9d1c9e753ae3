"""The servicer: translates calls into streams and back. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from labelmint.errors import LabelmintError
from labelmint.v1 import service_pb2
from labelmint_service.access.control import Access, Caller
from labelmint_service.access.tokens import AUTHORIZATION_KEY
from labelmint_service.errors import DrainingError, RequestError, ServiceError, UnauthenticatedError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.requests.parsing import NUM_INDICES
from labelmint_service.streams.sampling import SamplingService
from labelmint_service.structured_logs import log_context, log_event
from labelmint_service.tracing.calls import CallTrace, Tracing
from labelmint_service.wire.error_codes import code_name
from labelmint_service.wire.rich_status import STATUS_DETAILS_KEY, status_details
from labelmint_service.wire.version_messages import version_messages

SERVICE_NAME = "labelmint.v1.LabelMint"
ERROR_DETAIL_KEY = "labelmint-error-bin"
REQUEST_ID_KEY = "labelmint-request-id"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRANSIT_S = 0.25
"""The caller's deadline may pass before ours does, by the time that its request was on its way."""
_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_MessageT = TypeVar("_MessageT", bound=Message)
_Context = aio.ServicerContext[Any, Any]  # Any: one class for calls of all message types


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """A call in work.

    Attributes:
        rpc: Name of the method.
        request_id: The caller's, or one made here.
        authorization: Every value of the metadata `authorization`: secrets, not for the log.
        deadline_s: Time of time.monotonic() at which the caller gives up; None for never.
        trace: What is told of it.
    """

    rpc: str
    request_id: str
    authorization: tuple[str | bytes, ...] = field(repr=False)
    deadline_s: float | None
    trace: CallTrace


class LabelMintServicer:
    """Answers the calls of labelmint.v1.LabelMint.

    Streams come from below already serialised, so the handlers pass their bytes through. Requests come as bytes and are
    parsed here, so that one that cannot be parsed is refused as every other bad one is. Every call is read as a stream:
    where a method takes one message, grpc would never end a call that sends none.

    Args:
        sampling: What does the work.
        access: Who may call.
        metrics: Where to count.
        tracing: Where traces go.
    """

    def __init__(self, sampling: SamplingService, access: Access, metrics: ServiceMetrics, tracing: Tracing) -> None:
        self._sampling = sampling
        self._access = access
        self._metrics = metrics
        self._tracing = tracing
        self._active: set[Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_active(self) -> int:
        """Calls in work."""
        return len(self._active)

    async def wait_until_idle(self) -> None:
        """Wait until no call is in work."""
        await self._idle.wait()

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:  # Any: calls of all message types
        """What a grpc.aio server registers."""
        messages = service_pb2
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
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

    async def list_models(self, requests: AsyncIterator[bytes], context: _Context) -> service_pb2.ListModelsResponse:
        """Name the served models, those that the caller may see."""

        async def work(_call: Call, caller: Caller) -> service_pb2.ListModelsResponse:
            await self.receive(service_pb2.ListModelsRequest, requests)
            return service_pb2.ListModelsResponse(
                models=[
                    service_pb2.ModelSummary(
                        name=model.name,
                        version=model.bundle.manifest.version,
                        digest=model.bundle.digest,
                        numerics_id=model.numerics.id,
                        description=model.bundle.manifest.description,
                        versions=version_messages(self._sampling.catalog, model.name),
                    )
                    for model in self._sampling.catalog.limited_to(caller.models)
                ],
            )

        return await self.answer("ListModels", context, work)

    async def get_model(self, requests: AsyncIterator[bytes], context: _Context) -> service_pb2.GetModelResponse:
        """Describe one model."""

        async def work(_call: Call, caller: Caller) -> service_pb2.GetModelResponse:
            request = await self.receive(service_pb2.GetModelRequest, requests)
            catalog = self._sampling.catalog.limited_to(caller.models)
            model = catalog.find(request.model, field="model")[0]
            return service_pb2.GetModelResponse(
                manifest=model.bundle.manifest,
                numerics_id=model.numerics.id,
                numerics=model.numerics.document,
                version=next(one.name for one in catalog.versions(model.name) if one.model is model),
                versions=version_messages(catalog, model.name),
            )

        return await self.answer("GetModel", context, work)

    async def generate(self, requests: AsyncIterator[bytes], context: _Context) -> None:
        """Stream the samples of some addresses."""

        async def work(call: Call, caller: Caller) -> None:
            request = await self.receive(service_pb2.GenerateRequest, requests)
            stream = self._sampling.open_generate(
                request,
                caller=caller,
                deadline_s=call.deadline_s,
                request_id=call.request_id,
                trace=call.trace,
            )
            async with stream:
                async for message in stream.messages():
                    await context.write(message)

        await self.answer("Generate", context, work)

    async def label(self, requests: AsyncIterator[bytes], context: _Context) -> None:
        """Stream the samples of the caller's latents."""

        async def work(call: Call, caller: Caller) -> None:
            session = await self._sampling.open_label(
                _parsed(service_pb2.LabelRequest, requests),
                caller=caller,
                deadline_s=call.deadline_s,
                request_id=call.request_id,
                trace=call.trace,
            )
            async with session:
                async for message in session.messages():
                    await context.write(message)

        await self.answer("Label", context, work)

    async def receive(self, kind: type[_MessageT], requests: AsyncIterator[bytes]) -> _MessageT:
        """The one message of a call.

        Args:
            kind: What it has to be.
            requests: From the wire.

        Raises:
            RequestError: It is missing, or no such message.
            ServiceError: It does not come.
        """
        request = await self._sampling.receive_first(_parsed(kind, requests))
        if request is None:
            raise RequestError(f"the call sent no message, expected one {kind.DESCRIPTOR.full_name}; send it")
        return request

    async def answer(self, rpc: str, context: _Context, work: Callable[[Call, Caller], Awaitable[_T]]) -> _T:
        """Do the work of a call that may be made, with its names on every line of the log.

        Args:
            rpc: Name of the method.
            context: The call, as grpc has it.
            work: Does it, for a call and who makes it.
        """
        call = _make_call(rpc, context, self._tracing)
        with log_context(rpc=rpc, request_id=call.request_id, **call.trace.log_fields):
            return await self._count(call, context, work)

    async def _count(self, call: Call, context: _Context, work: Callable[[Call, Caller], Awaitable[_T]]) -> _T:
        """Do the work of a call, count it, and turn what it raises into a status."""
        began_s = time.monotonic()
        code = "CANCELLED"
        client = ""
        failure: Exception | None = None
        self._active.add(call)
        self._idle.clear()
        log_event(_log, logging.DEBUG, "call.begin", peer=context.peer())
        try:
            await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
            caller = await self._access.authenticate(call.authorization)
            client = caller.name
            result = await work(call, caller)
            code = "OK"
            return result
        except Exception as error:  # noqa: BLE001 - an unexpected error must reach the log, and the caller as INTERNAL
            code, failure = code_name(error) or "INTERNAL", error
            self._metrics.requests.labels(call.rpc, code).inc()  # before the caller learns of it
            await _abort(context, call, error)
        finally:
            self._active.remove(call)
            if not self._active:
                self._idle.set()
            if code == "CANCELLED" and call.deadline_s is not None and time.monotonic() >= call.deadline_s - _TRANSIT_S:
                code = "DEADLINE_EXCEEDED"  # which gRPC itself told the caller
            if failure is None:
                self._metrics.requests.labels(call.rpc, code).inc()
            if client:
                call.trace.describe(client=client)
            call.trace.end(code, failure)
            duration_s = round(time.monotonic() - began_s, 6)
            log_event(
                _log,
                logging.INFO,
                "call.end",
                client=client or None,
                peer=context.peer(),
                code=code,
                duration_s=duration_s,
            )


def parse_message(kind: type[_MessageT], data: bytes) -> _MessageT:
    """Read a request.

    Raises:
        RequestError: The bytes are no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise RequestError(
            f"the request is {len(data)} bytes that are no {kind.DESCRIPTOR.full_name}; send one made with "
            "labelmint/v1/service.proto",
        ) from error


async def _parsed(kind: type[_MessageT], requests: AsyncIterator[bytes]) -> AsyncIterator[_MessageT]:
    async for data in requests:
        yield parse_message(kind, data)


def _make_call(rpc: str, context: _Context, tracing: Tracing) -> Call:
    metadata = [(str(key), value) for key, value in context.invocation_metadata() or ()]
    request_id = str(dict(metadata).get(REQUEST_ID_KEY, ""))
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = uuid.uuid4().hex[:16]
    remaining_s = cast("float | None", context.time_remaining())  # None without a deadline, which the stubs omit
    deadline_s = None if remaining_s is None else time.monotonic() + remaining_s
    return Call(
        rpc=rpc,
        request_id=request_id,
        authorization=tuple(value for key, value in metadata if key == AUTHORIZATION_KEY),
        deadline_s=deadline_s,
        trace=tracing.begin_call(rpc, request_id, metadata),
    )


async def _abort(context: _Context, call: Call, error: Exception) -> NoReturn:
    """End a call with the status of an error. The text of an unexpected one stays in the log."""
    name = code_name(error)
    detail = service_pb2.ErrorDetail(request_id=call.request_id)
    if isinstance(error, LabelmintError) and name is not None:
        detail.field = error.field
        text = str(error)
    else:
        name = "INTERNAL"
        text = f"an unexpected error; the server's log has it under request id {call.request_id}"
    if isinstance(error, ServiceError) and error.next_index is not None and error.next_index < NUM_INDICES:
        detail.next_index = error.next_index
    metadata: list[tuple[str, bytes]] = [(ERROR_DETAIL_KEY, detail.SerializeToString())]
    rich = status_details(error, name) if isinstance(error, ServiceError) else None
    if rich is not None:
        metadata.append((STATUS_DETAILS_KEY, rich))
    is_ours = name == "INTERNAL"
    level = logging.ERROR if is_ours else logging.INFO if isinstance(error, DrainingError) else logging.WARNING
    log_event(
        _log,
        level,
        "call.error",
        error=error if is_ours else None,
        code=name,
        field=detail.field or None,
        message=text,
    )
    await context.abort(grpc.StatusCode[name], text, trailing_metadata=tuple(metadata))


class TokenGuard(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Lets only callers with a token at services that do not ask for it themselves, such as reflection.

    Health checks need none: what asks for them often cannot send one, and they tell no more than that the server runs.

    Args:
        access: Who may call.
    """

    _OPEN = (f"/{SERVICE_NAME}/", "/grpc.health.v1.Health/")

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:  # Any: calls of all message types
        """Go on, or refuse."""
        if not handler_call_details.method.startswith(self._OPEN):
            metadata = handler_call_details.invocation_metadata
            values = [value for key, value in metadata if key == AUTHORIZATION_KEY]
            try:
                await self._access.authenticate(values)
            except UnauthenticatedError as error:
                log_event(_log, logging.WARNING, "call.refused", rpc=handler_call_details.method, message=str(error))
                return _refusing(str(error))
        return await continuation(handler_call_details)


def _refusing(text: str) -> grpc.RpcMethodHandler[Any, Any]:  # Any: calls of all message types
    """A handler that refuses, whatever the call sends."""

    async def refuse(_requests: object, context: _Context) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

    return grpc.stream_stream_rpc_method_handler(refuse)
