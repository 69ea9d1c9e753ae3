"""The health servicer: `grpc.health.v1` for whoever asks, however slowly he reads.

The servicer of grpcio-health-checking holds a lock while it writes to a watcher: one that does not read would keep
everybody from learning, and the server from telling, how anything is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import grpc
from grpc_health.v1 import health_pb2

from labelmint_service.errors import ModelNotFoundError, RequestError
from labelmint_service.streams.first_messages import FirstMessages
from labelmint_service.wire.call_server import ServiceMethods
from labelmint_service.wire.calls import Context, receive_one
from labelmint_service.wire.open_calls import answer_openly

HEALTH_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_MOST_NAME_BYTES = 512
_Status = health_pb2.HealthCheckResponse


class HealthServicer:
    """Answers Check and Watch. There is no List: whoever may ask without a token must not learn the models' names.

    Args:
        timeout_s: Time that a call has for its request.
    """

    def __init__(self, timeout_s: float) -> None:
        self._first_messages = FirstMessages(timeout_s)
        self._statuses: Mapping[str, int] = {}
        self._is_stopped = False
        self._changed = asyncio.Event()

    def tell(self, statuses: Mapping[str, int]) -> None:
        """How everything is now; other names are unknown. For the event loop."""
        if not self._is_stopped:
            self._statuses = statuses
            self._changed.set()
            self._changed = asyncio.Event()

    def stop(self) -> None:
        """Tell that nothing serves any more, whatever is told later."""
        self.tell(dict.fromkeys(self._statuses, _Status.NOT_SERVING))
        self._is_stopped = True

    def methods(self) -> ServiceMethods:
        """What a server registers."""
        return ServiceMethods(
            service=HEALTH_NAME,
            handlers={
                "Check": grpc.stream_stream_rpc_method_handler(self.check),
                "Watch": grpc.stream_stream_rpc_method_handler(self.watch),
            },
        )

    async def check(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Tell how something is."""

        async def work() -> None:
            name = await self._receive_name(requests)
            if name not in self._statuses:
                raise ModelNotFoundError(
                    f"health knows no {name!r}; ask for '', a model, or NAME@VERSION", field="service"
                )
            await context.write(_message(self._statuses[name]))

        await answer_openly(context, work)

    async def watch(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Tell how something is, and again whenever that has changed; what came in between is not told."""

        async def work() -> None:
            name = await self._receive_name(requests)
            told = None
            while True:
                changed, status = self._changed, self._statuses.get(name, _Status.SERVICE_UNKNOWN)
                if status != told:
                    await context.write(_message(status))
                    told = status
                await changed.wait()

        await answer_openly(context, work)

    async def _receive_name(self, requests: AsyncIterator[bytes]) -> str:
        request = await receive_one(self._first_messages, health_pb2.HealthCheckRequest, requests)
        name: str = request.service
        size = len(name.encode())
        if size > _MOST_NAME_BYTES:
            raise RequestError(
                f"service is {size} bytes long, expected at most {_MOST_NAME_BYTES}; name a model", field="service"
            )
        return name


def _message(status: int) -> bytes:
    data: bytes = _Status(status=status).SerializeToString()
    return data
