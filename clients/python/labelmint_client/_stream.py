"""What the blocking and the asynchronous stream share: progress, buffering, recovery."""

from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from labelmint.batches import ReceivedBatch
from labelmint_client._cursor import StreamCursor
from labelmint_client._decode import samples_from_batch
from labelmint_client._failed_call import FailedCall
from labelmint_client._retry import Recovery
from labelmint_client._sample import Sample

# A call in progress (Any: grpc has no public type for one) and the offset of its ordinals, if it counts in ordinals.
OpenedCall = tuple[Any, int | None]


class StreamState:
    """Progress of a stream, as its reader sees it.

    Args:
        cursor: Addresses of the stream.
        recovery: Retries of the stream.
        open_call: Starts a call for what the cursor says is due; returns it with the offset of its ordinals, if any.

    Attributes:
        on_progress: Called, if set, after each message without samples: all that was scanned for it was rejected.
    """

    def __init__(
        self, cursor: StreamCursor, recovery: Recovery, open_call: Callable[[StreamCursor], OpenedCall]
    ) -> None:
        self.on_progress: Callable[[], None] | None = None
        self._cursor = cursor
        self._recovery = recovery
        self._open_call = open_call
        self._buffer: deque[Sample] = deque()
        # Set for Label, whose indices count from the start of a call.
        self._ordinal_offset: int | None = None
        # Any: grpc's call objects have no public common type for reading a stream.
        self._call: Any = None
        self._was_accepted = False
        self._owner: object = None

    @property
    def next_index(self) -> int:
        """Address to go on with: everything before it was delivered or rejected by the filter."""
        return self._buffer[0].index if self._buffer else self._cursor.next_index

    @property
    def num_samples(self) -> int:
        """Samples delivered so far."""
        return self._cursor.num_samples - len(self._buffer)

    @property
    def num_scanned(self) -> int:
        """Indices the server computed for the messages received so far."""
        return self._cursor.num_scanned

    @property
    def num_rejected(self) -> int:
        """Indices a filter rejected, of those scanned."""
        return self._cursor.num_rejected

    @property
    def num_reconnects(self) -> int:
        """How often the stream was taken up again."""
        return self._recovery.num_reconnects

    @property
    def digest(self) -> str:
        """Bundle of the samples; empty before the first message."""
        return self._cursor.digest

    @property
    def numerics_id(self) -> str:
        """Engine of the last message: equal ids mean bit-identical RAW outputs; empty before the first message."""
        return self._cursor.numerics_id

    @property
    def exhausted(self) -> bool:
        """Whether the last index of uint64 was scanned, where `next_index` cannot say so."""
        return self._cursor.exhausted and not self._buffer

    def _is_complete(self) -> bool:
        """Whether a stream has brought everything; one that asks for nothing must at least not be refused."""
        return self._was_accepted and self._cursor.is_done

    def _accept(self) -> None:
        """Note that the server took the request."""
        self._was_accepted = True
        self._recovery.answered()

    def _advance(self, batch: ReceivedBatch) -> None:
        if self._cursor.advance(batch.message, ordinal_offset=self._ordinal_offset):
            self._recovery.progressed()
        self._accept()
        if self.on_progress is not None and not batch.message.indices:
            self.on_progress()

    def _decode(self, batch: ReceivedBatch) -> list[Sample]:
        return samples_from_batch(batch, ordinal_offset=self._ordinal_offset or 0)

    def _delay_after(self, error: grpc.RpcError) -> float | None:
        """Judge a failed call.

        Returns:
            Seconds to wait before the next attempt; None if everything had come already.

        Raises:
            ClientError: The fault will not pass, or the attempts are spent.
        """
        if self._is_complete():
            return None
        return self._recovery.delay_s(FailedCall(error), self._cursor, ordinal_offset=self._ordinal_offset or 0)

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
