"""Calls: who makes one, what is told of it, and which status it ends with. Of every method, whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from labelmint.addresses import NUM_INDICES
from labelmint.errors import LabelmintError
from labelmint.v1 import service_pb2
from labelmint.wire import AUTHORIZATION_KEY, ERROR_DETAIL_KEY, REQUEST_ID_KEY, STATUS_DETAILS_KEY
from labelmint_service.access.control import Access, Caller
from labelmint_service.errors import DrainingError, RequestError, ServiceError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.streams.call import StreamCall
from labelmint_service.streams.first_messages import FirstMessages
from labelmint_service.structured_logs import log_context, log_event
from labelmint_service.tracing.calls import CallTrace, Tracing
from labelmint_service.wire.error_codes import code_name
from labelmint_service.wire.line_limit import LineLimit
from labelmint_service.wire.rich_status import status_details

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRANSIT_S = 0.25
"""The caller's deadline may pass before ours does, by the time that its request was on its way."""
_BRIEF_S = 1.0
"""Of calls that were over so soon the log tells no more than the line limit allows; longer ones are few."""
_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_MessageT = TypeVar("_MessageT", bound=Message)
Context: TypeAlias = aio.ServicerContext[Any, Any]  # Any: one class for calls of all message types


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

    def stream_call(self, caller: Caller) -> StreamCall:
        """What streams are told of it."""
        return StreamCall(caller=caller, deadline_s=self.deadline_s, request_id=self.request_id, trace=self.trace)


class CallAnswerer:
    """Answers calls: lets in who may call, counts, traces, and turns errors into a status.

    Args:
        access: Who may call.
        metrics: Where to count.
        tracing: Where traces go.
        first_messages: Waits for what a call asks.
    """

    def __init__(
        self, access: Access, metrics: ServiceMetrics, tracing: Tracing, first_messages: FirstMessages
    ) -> None:
        self._access = access
        self._metrics = metrics
        self._tracing = tracing
        self._first_messages = first_messages
        self._lines = LineLimit()
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

    async def receive(self, kind: type[_MessageT], requests: AsyncIterator[bytes]) -> _MessageT:
        """The one message of a call.

        Args:
            kind: What it has to be.
            requests: From the wire.

        Raises:
            RequestError: It is missing, or no such message.
            ServiceError: It does not come.
        """
        return await receive_one(self._first_messages, kind, requests)

    async def answer(
        self, service: str, rpc: str, context: Context, work: Callable[[Call, Caller], Awaitable[_T]]
    ) -> _T:
        """Do the work of a call that may be made, with its names on every line of the log.

        Args:
            service: Name of the service.
            rpc: Name of the method.
            context: The call, as grpc has it.
            work: Does it, for a call and who makes it.
        """
        call = _make_call(service, rpc, context, self._tracing)
        with log_context(rpc=rpc, request_id=call.request_id, **call.trace.log_fields):
            return await self._count(call, context, work)

    async def _count(self, call: Call, context: Context, work: Callable[[Call, Caller], Awaitable[_T]]) -> _T:
        """Do the work of a call, count it, and turn what it raises into a status."""
        began_s = time.monotonic()
        peer = context.peer()  # unknown once the caller has left
        code = "CANCELLED"
        client = ""
        failure: Exception | None = None
        left_out: int | None = 0
        self._active.add(call)
        self._idle.clear()
        log_event(_log, logging.DEBUG, "call.begin", peer=peer)
        try:
            with leaving_cancels():
                await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
                caller = await self._access.authenticate(call.authorization)
                client = caller.name
                result = await work(call, caller)
            code = "OK"
            return result
        except Exception as error:  # noqa: BLE001 - an unexpected error must reach the log, and the caller as INTERNAL
            code, failure = code_name(error) or "INTERNAL", error
            self._metrics.requests.labels(call.rpc, code).inc()  # before the caller learns of it
            left_out = self._admit_lines(code, began_s)
            with leaving_cancels():
                await _abort(context, call, error, is_told=left_out is not None)
        finally:
            self._active.remove(call)
            if not self._active:
                self._idle.set()
            if code == "CANCELLED" and call.deadline_s is not None and time.monotonic() >= call.deadline_s - _TRANSIT_S:
                code = "DEADLINE_EXCEEDED"  # which gRPC itself told the caller
            if failure is None:
                self._metrics.requests.labels(call.rpc, code).inc()
                left_out = self._admit_lines(code, began_s)
            if client:
                call.trace.describe(client=client)
            call.trace.end(code, failure)
            if left_out is not None:
                log_event(
                    _log,
                    logging.INFO,
                    "call.end",
                    client=client or None,
                    peer=peer,
                    code=code,
                    duration_s=round(time.monotonic() - began_s, 6),
                    left_out=left_out or None,
                )

    def _admit_lines(self, code: str, began_s: float) -> int | None:
        """How many such calls the log has left out before; None if it leaves out this one too."""
        if code in {"OK", "INTERNAL"} or time.monotonic() - began_s >= _BRIEF_S:
            return 0
        return self._lines.admit(code)


def _parse_message(kind: type[_MessageT], data: bytes) -> _MessageT:
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


async def parsed(kind: type[_MessageT], requests: AsyncIterator[bytes]) -> AsyncIterator[_MessageT]:
    """Read the messages of a call.

    Args:
        kind: What they have to be.
        requests: From the wire.

    Raises:
        RequestError: One is no such message.
    """
    async for data in requests:
        yield _parse_message(kind, data)


async def receive_one(
    first_messages: FirstMessages, kind: type[_MessageT], requests: AsyncIterator[bytes]
) -> _MessageT:
    """The one message of a call.

    Args:
        first_messages: Waits for it.
        kind: What it has to be.
        requests: From the wire.

    Raises:
        RequestError: It is missing, or no such message.
        ServiceError: It does not come.
    """
    request = await first_messages.receive(parsed(kind, requests))
    if request is None:
        raise RequestError(f"the call sent no message, expected one {kind.DESCRIPTOR.full_name}; send it")
    return request


@contextlib.contextmanager
def leaving_cancels() -> Iterator[None]:
    """A caller who has left has cancelled the call: grpc fails what is written to him with an error of its own."""
    try:
        yield
    except aio.InternalError as error:
        raise asyncio.CancelledError from error


def _make_call(service: str, rpc: str, context: Context, tracing: Tracing) -> Call:
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
        trace=tracing.begin_call(service, rpc, request_id, metadata),
    )


async def _abort(context: Context, call: Call, error: Exception, *, is_told: bool) -> NoReturn:
    """End a call with the status of an error. The text of an unexpected one stays in the log.

    Args:
        context: The call, as grpc has it.
        call: The call.
        error: Why it ends.
        is_told: Whether the log tells of it.
    """
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
    if is_told:
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
