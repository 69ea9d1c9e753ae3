"""First messages: what a call asks. They are waited for, but neither for ever nor while the server goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from google.protobuf.message import Message

from labelmint_service.errors import DrainingError, LateError

_MessageT = TypeVar("_MessageT", bound=Message)


class FirstMessages:
    """Waits for the first message of calls.

    Args:
        timeout_s: Time that each has.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Wait no more: the server is going away."""
        self._draining.set()

    async def receive(self, requests: AsyncIterator[_MessageT], *, field: str = "") -> _MessageT | None:
        """Wait for one.

        Args:
            requests: From the wire.
            field: What it has to bring.

        Returns:
            The message; None if the caller ended its side without one.

        Raises:
            DrainingError: The server is going away.
            LateError: None came in time.
        """

        async def receive() -> _MessageT | None:
            return await anext(requests, None)

        loop = asyncio.get_running_loop()
        receiving, draining = loop.create_task(receive()), loop.create_task(self._draining.wait())
        try:
            await asyncio.wait({receiving, draining}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            if draining.done():
                raise DrainingError("the server is going away; ask another one or retry after its restart")
            raise LateError(
                f"no message came within {self._timeout_s:g} s, expected the request, or the options of Label; send it "
                "when the call begins, latents may follow later",
                field=field,
            )
        finally:
            for task in (receiving, draining):
                task.cancel()
            await asyncio.gather(receiving, draining, return_exceptions=True)
