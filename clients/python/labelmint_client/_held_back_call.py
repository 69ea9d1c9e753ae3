"""An asynchronous call that sends several messages."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from labelmint.v1 import service_pb2


class HeldBackCall:
    """A call that sends its first message, and the others once it was answered.

    What a server refuses it mostly refuses at the first message, and grpc.aio forgets the status of a call that ends
    while a message is being written: it says INTERNAL instead.

    Args:
        make_call: Begins the call with its messages (Any: grpc has no public type for one).
        messages: To send.
    """

    def __init__(
        self,
        make_call: Callable[[AsyncIterator[service_pb2.LabelRequest]], Any],
        messages: Iterable[service_pb2.LabelRequest],
    ) -> None:
        self._answered = asyncio.Event()
        self._call = make_call(self._held_back(messages))

    async def read(self) -> Any:  # Any: a message or grpc's mark of the end
        """The next answer."""
        try:
            return await self._call.read()
        finally:
            self._answered.set()

    def cancel(self) -> bool:
        """End the call."""
        cancelled: bool = self._call.cancel()
        self._answered.set()
        return cancelled

    async def _held_back(self, messages: Iterable[service_pb2.LabelRequest]) -> AsyncIterator[service_pb2.LabelRequest]:
        for number, message in enumerate(messages):
            if number:
                await self._answered.wait()
                if self._call.done():
                    return
            yield message
