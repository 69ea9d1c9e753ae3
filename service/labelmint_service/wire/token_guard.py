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
from labelmint_service.wire.calls import Context

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
        self._open = (f"/{own_service}/", "/grpc.health.v1.Health/")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:  # Any: calls of all message types
        """Go on, or refuse."""
        if not handler_call_details.method.startswith(self._open):
            metadata = handler_call_details.invocation_metadata
            values = [value for key, value in metadata if key == AUTHORIZATION_KEY]
            try:
                await self._access.authenticate(values)
            except UnauthenticatedError as error:
                # Callers choose the names of methods, so they are no label.
                self._metrics.requests.labels("other", grpc.StatusCode.UNAUTHENTICATED.name).inc()
                return _refusing(handler_call_details.method, str(error))
        return await continuation(handler_call_details)


def _refusing(method: str, text: str) -> grpc.RpcMethodHandler[Any, Any]:  # Any: calls of all message types
    """A handler that refuses, whatever the call sends."""

    async def refuse(_requests: object, context: Context) -> None:
        log_event(_log, logging.WARNING, "call.refused", rpc=method, peer=context.peer(), message=text)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

    return grpc.stream_stream_rpc_method_handler(refuse)
