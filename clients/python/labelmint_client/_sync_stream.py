"""The blocking stream of samples."""

import threading
from collections.abc import Callable, Iterator
from typing import Self

import grpc

from labelmint_client._channel import abandon, process_id
from labelmint_client._closing import Closing
from labelmint_client._cursor import StreamCursor
from labelmint_client._errors import UsageError
from labelmint_client._retry import Recovery
from labelmint_client._sample import Sample
from labelmint_client._stream import OpenedCall, StreamState


class SampleStream(StreamState, Closing, Iterator[Sample]):
    """Samples in index order, taken up again by itself when the connection breaks.

    An iterator that also knows where it stands. Read it from one thread; `close` may come from any. After an error that
    `next` raised, calling `next` again tries once more from the same address.

    Args:
        cursor: Addresses of the stream.
        recovery: Retries of the stream.
        open_call: Starts a call for what the cursor says is due; returns it with the offset of its ordinals, if any.
        renew_channel: Lets the next call have a channel of its own.
    """

    def __init__(
        self,
        cursor: StreamCursor,
        recovery: Recovery,
        open_call: Callable[[StreamCursor], OpenedCall],
        renew_channel: Callable[[], None],
    ) -> None:
        super().__init__(cursor, recovery, open_call)
        self._renew_channel = renew_channel
        # Closing wakes a reader that waits before it reconnects.
        self._closing = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Sample:
        self._check_owner()
        while not self._buffer or self._closing.is_set():
            self._receive()
        return self._buffer.popleft()

    def close(self) -> None:
        """End the stream. What was received but not read is still due: `next_index` and `num_samples` leave it out."""
        self._closing.set()
        if self._call is None:
            return
        if self._owner == process_id():
            self._call.cancel()
        else:
            abandon(self._call)

    def _receive(self) -> None:
        """Read one message into the buffer, reconnecting as often as allowed."""
        if self._closing.is_set() or (self._call is None and self._is_complete()):
            raise StopIteration
        try:
            if self._call is None:
                self._call, self._ordinal_offset = self._open_call(self._cursor)
            batch = next(self._call)
        except StopIteration:
            self._call = None
            self._cursor.check_complete()
            self._accept()
            raise
        except grpc.RpcError as error:
            self._call = None
            if self._closing.is_set():
                raise StopIteration from None
            delay_s = self._delay_after(error)
            if delay_s is None:
                raise StopIteration from None
            self._closing.wait(delay_s)
            return
        except BaseException:
            # Ctrl-C, say: grpc waits for the message still and cannot be asked for it twice, but another call can. It
            # may have been torn out of grpc with a lock in its hands, for which all calls of the channel would wait.
            self._drop_call()
            self._renew_channel()
            raise
        try:
            samples = self._decode(batch)
            self._advance(batch)
        except BaseException:
            self._drop_call()
            raise
        self._buffer.extend(samples)

    def _check_owner(self) -> None:
        owner = process_id()
        if self._owner is None:
            self._owner = owner
        elif self._owner != owner:
            raise UsageError(
                f"this stream belongs to process {self._owner} and is read in process {owner}; "
                "start one stream in each process, with shard_index and num_shards"
            )
