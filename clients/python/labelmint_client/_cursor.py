"""Address bookkeeping of one stream: what came, what is still due, and how to ask for it.

Nothing here does I/O. A cursor checks every message against the addresses that are due, so a fault of the connection or
of a server can neither lose a sample nor bring one twice.
"""

from dataclasses import dataclass

from labelmint.addresses import NUM_INDICES
from labelmint.v1 import service_pb2
from labelmint_client._errors import ModelChangedError, NumericsMismatchError, ProtocolError, ScanLimitError


@dataclass(kw_only=True, slots=True)
class StreamCursor:
    """Where a stream stands.

    Attributes:
        next_index: First address that has not come yet.
        end_index: Exclusive end.
        shard_index: Only indices congruent to this modulo num_shards are due.
        num_shards: Number of shards.
        remaining: Samples still due; None if endless.
        remaining_scans: Indices that may still be scanned; None without a limit.
        every_index: No filter is on, so that every address of the shard must come.
        pin_numerics: Whether all messages must carry one numerics_id.
        digest: Bundle of the stream, empty until known.
        numerics_id: Id of the stream, empty until known.
        num_samples: Samples that came.
        num_scanned: Indices that the server computed.
        num_rejected: Indices that a filter rejected.
        exhausted: The last index that there is has been scanned.
    """

    next_index: int
    end_index: int = NUM_INDICES
    shard_index: int = 0
    num_shards: int = 1
    remaining: int | None = None
    remaining_scans: int | None = None
    every_index: bool = True
    pin_numerics: bool = True
    digest: str = ""
    numerics_id: str = ""
    num_samples: int = 0
    num_scanned: int = 0
    num_rejected: int = 0
    exhausted: bool = False

    @classmethod
    def of_generate(cls, request: service_pb2.GenerateRequest, *, pin_numerics: bool) -> "StreamCursor":
        """Start before the first sample of a request."""
        return cls(
            next_index=request.start_index,
            end_index=request.end_index if request.HasField("end_index") else NUM_INDICES,
            shard_index=request.shard_index,
            num_shards=request.num_shards,
            remaining=request.max_accepted if request.HasField("max_accepted") else None,
            remaining_scans=request.max_scanned if request.HasField("max_scanned") else None,
            every_index=not request.HasField("filter"),
            pin_numerics=pin_numerics,
            digest=request.digest,
            numerics_id=request.numerics_id,
        )

    @classmethod
    def of_label(cls, options: service_pb2.LabelOptions, num_latents: int, *, pin_numerics: bool) -> "StreamCursor":
        """Start before the first of the caller's latents, whose rows are the addresses."""
        return cls(
            next_index=0,
            end_index=num_latents,
            pin_numerics=pin_numerics,
            digest=options.digest,
            numerics_id=options.numerics_id,
        )

    @property
    def is_done(self) -> bool:
        """Whether nothing is due any more."""
        return self.exhausted or self.remaining == 0 or self._first_due(self.next_index) is None

    def resumed(self, request: service_pb2.GenerateRequest) -> service_pb2.GenerateRequest:
        """Ask for what is still due.

        Args:
            request: The first request of the stream.

        Raises:
            ScanLimitError: All indices that the request allows have been scanned.
        """
        if self.remaining_scans is not None and self.remaining_scans <= 0:
            raise ScanLimitError(
                f"{self.num_scanned} indices were scanned and {self.num_samples} samples passed the filter; "
                "loosen the filter or raise max_scanned",
                field="max_scanned",
                next_index=self.next_index,
            )
        again = service_pb2.GenerateRequest()
        again.CopyFrom(request)
        again.start_index = self.next_index
        if self.remaining is not None:
            again.max_accepted = self.remaining
        if self.remaining_scans is not None:
            again.max_scanned = self.remaining_scans
        again.digest = self.digest
        if self.pin_numerics:
            again.numerics_id = self.numerics_id
        return again

    def advance(self, batch: service_pb2.SampleBatch, *, ordinal_offset: int | None = None) -> bool:
        """Check a message and move past it.

        Args:
            batch: The message.
            ordinal_offset: For `Label`, where indices count from the start of the call: the row the call began with.

        Returns:
            Whether it brought the stream forward.

        Raises:
            ModelChangedError: It comes from another bundle.
            NumericsMismatchError: It comes from another engine, and the stream is pinned.
            ProtocolError: Its addresses are not those that are due.
        """
        self._check_origin(batch)
        indices = list(batch.indices)
        if ordinal_offset is None:
            next_index = batch.next_index
        else:
            indices = [index + ordinal_offset for index in indices]
            next_index = indices[-1] + 1 if indices else self.next_index
        self._check_indices(indices)
        last = indices[-1] if indices else None
        self.exhausted = batch.exhausted or last == NUM_INDICES - 1
        if not self.exhausted:
            self._check_next_index(next_index, last)
        moved = bool(indices) or next_index != self.next_index or self.exhausted
        if not self.exhausted:
            self.next_index = next_index
        self.num_samples += len(indices)
        self.num_scanned += batch.num_scanned
        self.num_rejected += batch.num_rejected
        if self.remaining is not None:
            self.remaining -= len(indices)
        if self.remaining_scans is not None:
            self.remaining_scans -= batch.num_scanned
        return moved

    def check_complete(self) -> None:
        """Make sure that a stream which the server ended without an error brought all it owed.

        Raises:
            ProtocolError: Samples are missing.
        """
        if not self.is_done:
            raise ProtocolError(
                f"the server ended the stream at index {self.next_index} although more is due; "
                "go on with start_index there and report the server's version",
                next_index=self.next_index,
            )

    def _check_origin(self, batch: service_pb2.SampleBatch) -> None:
        if self.digest and batch.digest != self.digest:
            raise ModelChangedError(
                f"the server now serves bundle {batch.digest}, the stream began with {self.digest}; "
                f"start a new stream with start_index={self.next_index} to go on with the new bundle",
                field="digest",
                next_index=self.next_index,
            )
        if self.pin_numerics and self.numerics_id and batch.numerics_id != self.numerics_id:
            raise NumericsMismatchError(
                f"the server now computes with numerics_id {batch.numerics_id}, "
                f"the stream began with {self.numerics_id}. " + self.how_to_go_on(),
                field="numerics_id",
                next_index=self.next_index,
            )
        self.digest = batch.digest
        self.numerics_id = batch.numerics_id

    def how_to_go_on(self) -> str:
        """Say how to continue where bit-identical output is no longer to be had."""
        due = "" if self.remaining is None else f" and count={self.remaining}"
        return (
            f"Go on at an engine with the first id, or start a new stream with start_index={self.next_index}{due} "
            "(with pin_numerics=False a stream accepts such a change by itself: outputs then agree within the "
            "manifest's tolerances)"
        )

    def _check_indices(self, indices: list[int]) -> None:
        due = self._first_due(self.next_index)
        for index in indices:
            if due is None or index < due or (index - self.shard_index) % self.num_shards:
                raise self._wrong_address(index)
            if self.every_index and index != due:
                raise self._wrong_address(index)
            due = self._first_due(index + 1)
        if self.remaining is not None and len(indices) > self.remaining:
            raise ProtocolError(
                f"the server sent {len(indices)} samples where {self.remaining} were due", next_index=self.next_index
            )

    def _check_next_index(self, next_index: int, last: int | None) -> None:
        reached = self.next_index if last is None else last + 1
        skipped = self.every_index and self._first_due(next_index) != self._first_due(reached)
        if next_index < reached or skipped:
            raise ProtocolError(
                f"the server went to index {next_index} after a message that ends at {reached}",
                next_index=self.next_index,
            )

    def _wrong_address(self, index: int) -> ProtocolError:
        return ProtocolError(
            f"the server sent sample {index}, expected {self._first_due(self.next_index)} or its successors "
            f"in shard {self.shard_index} of {self.num_shards} below {self.end_index}",
            field="indices",
            next_index=self.next_index,
        )

    def _first_due(self, index: int) -> int | None:
        first = index + (self.shard_index - index) % self.num_shards
        return first if first < self.end_index else None
