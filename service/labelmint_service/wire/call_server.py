"""The call server: grpc.aio's, which goes on whatever a call names as its method.

grpc.aio reads the path of each call as UTF-8 in the one task that takes all calls. Where it is none, that task ends and
the server with it: one frame of a stranger is enough (grpcio 1.84.0 to 1.85.3). The core of grpc compares paths as
bytes. So every method is made known to it by name, and a call for anything else, whatever its path, is refused here
before grpc.aio looks at it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from grpc import aio
from grpc._cython import cygrpc
from grpc.aio import _server

from labelmint_service.structured_logs import log_event
from labelmint_service.tracing.calls import Metadata
from labelmint_service.wire.grpc_logs import keep_metadata_out

_log = logging.getLogger(__name__)
Refusal: TypeAlias = tuple[grpc.StatusCode, str]
Refuse: TypeAlias = Callable[[Metadata, str], Awaitable[Refusal]]
NO_METHOD: Refusal = (grpc.StatusCode.UNIMPLEMENTED, "the server has no such method; reflection tells which there are")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServiceMethods:
    """What answers the calls of a service.

    Attributes:
        service: Its name.
        handlers: By name of the method.
    """

    service: str
    handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]  # Any: calls of all message types


class CallServer(_server.Server):
    """A server of grpc.aio on the running event loop.

    Args:
        options: Of grpc.
        interceptors: Of grpc.
        refuse: Which status a call for no method gets, by its metadata and peer.
    """

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        interceptors: Sequence[aio.ServerInterceptor],  # type: ignore[type-arg]  # in the stubs alone
        refuse: Refuse,
    ) -> None:
        keep_metadata_out()
        self._loop = asyncio.get_running_loop()
        arguments = _server._augment_channel_arguments(options, None)
        self._server = _Core(self._loop, None, (), tuple(interceptors), arguments, None)
        self._server.refuse = refuse

    def add_methods(self, methods: ServiceMethods) -> None:
        """Serve them; before the start."""
        self.add_registered_method_handlers(methods.service, dict(methods.handlers))


async def refuse_unknown(_metadata: Metadata, _peer: str) -> Refusal:
    """Which status a call for no method gets where nothing is asked of its caller."""
    return NO_METHOD


class _Core(cygrpc.AioServer):  # type: ignore[misc]  # grpc has no types
    """Gives grpc.aio no call for a method that is not registered."""

    refuse: Refuse

    async def _request_call(self) -> None:
        """Refuse one call after the other; grpc ends this with an exception when it stops."""
        loop = asyncio.get_running_loop()
        refusing = set[asyncio.Task[None]]()
        while True:
            # Nothing but these tasks keeps the call: grpc lets it go with the last reference.
            context = cygrpc._ServicerContext(await super()._request_call(), None, None, loop)
            task = loop.create_task(self._refuse(context))
            refusing.add(task)
            task.add_done_callback(refusing.discard)
            del context, task

    async def _refuse(self, context: Any) -> None:  # Any: grpc has no types
        try:
            code, text = await self.refuse(context.invocation_metadata(), context.peer())
            await context.abort(code, text)
        except (aio.AbortError, aio.InternalError):  # told, or the caller has left
            pass
        except Exception as error:  # noqa: BLE001 - a defect of ours, which nobody else would tell
            log_event(_log, logging.ERROR, "call.error", error=error)
