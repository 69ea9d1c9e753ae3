"""The asynchronous stream of samples."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from labelmint.batches import ReceivedBatch
from labelmint_client._channel import abandon, is_task_cancelled, process_and_loop
from labelmint_client._cursor import StreamCursor
from labelmint_client._decode import has_encoded_items
from labelmint_client._errors import UsageError
from labelmint_client._retry import Recovery
from labelmint_client._sample import Sample
from labelmint_client._stream import OpenedCall, StreamState


class AsyncSampleStream(StreamState, AsyncIterator[Sample]):
    """Samples in index order, taken up again by itself when the connection breaks.

    An asynchronous iterator that also knows where it stands. Read it from one task at a time. After an error that
    reading raised, reading again tries once more from the same address.

    Args:
        cursor: Addresses of the stream.
        recovery: Retries of the stream.
        open_call: Starts a call for what the cursor says is due; returns it with the offset of its ordinals, if any.
    """

    def __init__(
        self, cursor: StreamCursor, recovery: Recovery, open_call: Callable[[StreamCursor], OpenedCall]
    ) -> None:
        super().__init__(cursor, recovery, open_call)
        # Closing wakes a reader that waits before it reconnects.
        self._closing = asyncio.Event()

    def __del__(self) -> None:
        # A reader that leaves its loop early closes nothing, and grpc.aio keeps a call until it is over.
        if self._call is None:
            return
        match self._owner:
            case (int() as process, asyncio.AbstractEventLoop() as loop) if process == os.getpid():
                with contextlib.suppress(RuntimeError):  # a loop that is closed
                    loop.call_soon_threadsafe(self._call.cancel)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sample:
        self._check_owner()
        while not self._buffer or self._closing.is_set():
            await self._receive()
        return self._buffer.popleft()

    async def aclose(self) -> None:
        """End the stream. What was received but not read is still due: `next_index` and `num_samples` leave it out."""
        self._closing.set()
        if self._call is None:
            return
        if self._owner == process_and_loop():
            self._call.cancel()
        else:
            abandon(self._call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _receive(self) -> None:
        """Read one message into the buffer, reconnecting as often as allowed."""
        if self._closing.is_set() or (self._call is None and self._is_complete()):
            raise StopAsyncIteration
        try:
            batch = await self._read()
        except grpc.RpcError as error:
            self._call = None
            delay_s = None if self._closing.is_set() else self._delay_after(error)
            if delay_s is None:
                raise StopAsyncIteration from None
            await self._pause(delay_s)
            return
        except asyncio.CancelledError:
            self._call = None
            if is_task_cancelled():
                raise
            # Closing the stream or its client cancels the call, and grpc raises as if the reader had been cancelled.
            if self._closing.is_set():
                raise StopAsyncIteration from None
            raise UsageError("the client was closed while this stream was read") from None
        if batch is None:
            self._call = None
            self._cursor.check_complete()
            self._accept()
            raise StopAsyncIteration
        await self._keep(batch)

    async def _read(self) -> ReceivedBatch | None:
        if self._call is None:
            self._call, self._ordinal_offset = self._open_call(self._cursor)
        batch = await self._call.read()
        return None if batch is grpc.aio.EOF else batch  # type: ignore[attr-defined]  # missing in grpc-stubs

    async def _keep(self, batch: ReceivedBatch) -> None:
        try:
            # Decompressing is work for a thread; RAW arrays are views and cost nothing.
            decoded = asyncio.to_thread(self._decode, batch) if has_encoded_items(batch) else None
            samples = self._decode(batch) if decoded is None else await decoded
            self._advance(batch)
        except BaseException:
            # Also when the reader was cancelled meanwhile: the message is asked for again.
            self._drop_call()
            raise
        self._buffer.extend(samples)

    async def _pause(self, delay_s: float) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), delay_s)
        except TimeoutError:
            return

    def _check_owner(self) -> None:
        owner = process_and_loop()
        if self._owner is None:
            self._owner = owner
        elif self._owner != owner:
            raise UsageError(
                "this stream was started in another process or event loop; start one stream in each, "
                "with shard_index and num_shards"
            )
