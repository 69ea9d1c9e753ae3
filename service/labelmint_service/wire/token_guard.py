"""The token guard: keeps callers without a token from services that do not ask for one themselves."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from labelmint.wire import AUTHORIZATION_KEY
from labelmint_service.access.control import Access
from labelmint_service.errors import UnauthenticatedError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.structured_logs import log_event
from labelmint_service.tracing.calls import Metadata
from labelmint_service.wire.call_server import NO_METHOD, Refusal
from labelmint_service.wire.calls import Context
from labelmint_service.wire.line_limit import LineLimit

_log = logging.getLogger(__name__)


class TokenGuard(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Lets only callers with a token at services that do not ask for it themselves, such as reflection.

    Health checks need none: what asks for them often cannot send one. They tell that the server runs, and whoever knows
    the name of a model whether it is ready.

    Args:
        access: Who may call.
        own_service: Name of the service whose calls ask for themselves.
        metrics: Where refused calls are counted.
    """

    def __init__(self, access: Access, own_service: str, metrics: ServiceMetrics) -> None:
        self._access = access
        self._metrics = metrics
        self._lines = LineLimit()
        self._open = (f"/{own_service}/", "/grpc.health.v1.Health/")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:  # Any: calls of all message types
        """Go on, or refuse."""
        method = handler_call_details.method
        if not method.startswith(self._open):
            text = await self._refusal(handler_call_details.invocation_metadata)
            if text is not None:
                return self._refusing(method, text)
        return await continuation(handler_call_details)

    async def refuse(self, metadata: Metadata, peer: str) -> Refusal:
        """Which status a call for no method of the server gets: what there is, is told to those with a token."""
        text = await self._refusal(metadata)
        if text is None:
            return NO_METHOD
        self._tell("other", peer, text)
        return grpc.StatusCode.UNAUTHENTICATED, text

    async def _refusal(self, metadata: Metadata) -> str | None:
        """Why the caller may not call, counted; None if he may."""
        try:
            await self._access.authenticate([value for key, value in metadata if key == AUTHORIZATION_KEY])
        except UnauthenticatedError as error:
            # Callers choose the names of methods, so they are no label.
            self._metrics.requests.labels("other", grpc.StatusCode.UNAUTHENTICATED.name).inc()
            return str(error)
        return None

    def _refusing(self, method: str, text: str) -> grpc.RpcMethodHandler[Any, Any]:  # Any: calls of all message types
        """A handler that refuses, whatever the call sends."""

        async def refuse(_requests: object, context: Context) -> None:
            self._tell(method, context.peer(), text)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _tell(self, rpc: str, peer: str, text: str) -> None:
        left_out = self._lines.admit("call.refused")
        if left_out is not None:
            log_event(
                _log, logging.WARNING, "call.refused", rpc=rpc, peer=peer, message=text, left_out=left_out or None
            )
