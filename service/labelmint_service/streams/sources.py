"""Sources: where the rows of a stream come from, in index order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labelmint_service.engine import EngineInputs
from labelmint_service.models.latents import latents_at
from labelmint_service.requests.parsing import GenerateJob
from labelmint_service.scheduling.rows import Entry, Rows


class RowSource(Protocol):
    """Hands out rows.

    Attributes:
        next_index: Index of the first row not handed out; NUM_INDICES at most.
    """

    next_index: int

    @property
    def entry(self) -> Entry:
        """Where the next rows enter the engine."""
        ...

    @property
    def is_exhausted(self) -> bool:
        """Whether no row will come any more."""
        ...

    @property
    def is_at_end(self) -> bool:
        """Whether it is exhausted because there is nothing more, not because of a bound on the rows."""
        ...

    def num_ready(self, most: int) -> int:
        """Rows that can be taken now and share an entry, at most `most`."""
        ...

    def take(self, count: int) -> Rows:
        """Hand out the next rows, `count` of those that are ready."""
        ...


class AddressSource:
    """The addresses of a Generate stream.

    Without a filter no more rows are handed out than the caller accepts, and never more than max_scanned.

    Args:
        job: What to generate.
    """

    entry = Entry.LATENTS

    def __init__(self, job: GenerateJob) -> None:
        self._job = job
        offset = (job.shard_index - job.start_index) % job.num_shards
        self.next_index = job.start_index + offset
        bounds = [bound for bound in (job.max_scanned, None if job.sample_filter else job.max_accepted) if bound]
        self._most_rows: int | None = min(bounds, default=None)

    @property
    def is_exhausted(self) -> bool:
        """Whether the last address was handed out."""
        return self.num_ready(1) == 0

    @property
    def is_at_end(self) -> bool:
        """Whether the last address of the request was handed out."""
        return self.next_index >= self._job.stop_index

    def num_ready(self, most: int) -> int:
        """Rows that can be taken now, at most `most`."""
        left = max(0, -(-(self._job.stop_index - self.next_index) // self._job.num_shards))
        return min(most, left) if self._most_rows is None else min(most, left, self._most_rows)

    def take(self, count: int) -> Rows:
        """Hand out the next addresses."""
        step = self._job.num_shards
        indices = tuple(self.next_index + position * step for position in range(count))
        self.next_index += count * step
        if self._most_rows is not None:
            self._most_rows -= count
        return Rows(indices=indices, load=lambda: self._load(indices))

    def _load(self, indices: tuple[int, ...]) -> EngineInputs:
        job = self._job
        return latents_at(
            job.model.bundle.manifest,
            job.seed,
            np.array(indices, dtype=np.uint64),
            truncation_psi=job.truncation_psi,
            class_index=job.class_index,
        )


@dataclass(slots=True)
class _Chunk:
    """Latents of one message that were not all handed out."""

    entry: Entry
    num_rows: int
    load: Callable[[int, int], EngineInputs]
    num_taken: int = 0


class LatentSource:
    """The latents that the caller of a Label stream brings; rows are numbered in the order in which they come.

    Args:
        max_backlog_rows: `wait_for_room` waits while more rows than this are not handed out.
        on_change: Called when rows came or the end was reached.
    """

    def __init__(self, *, max_backlog_rows: int, on_change: Callable[[], None]) -> None:
        self.next_index = 0
        self._max_backlog_rows = max_backlog_rows
        self._on_change = on_change
        self._chunks: deque[_Chunk] = deque()
        self._is_finished = False
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def entry(self) -> Entry:
        """Where the next rows enter the engine."""
        return self._chunks[0].entry if self._chunks else Entry.LATENTS

    @property
    def is_exhausted(self) -> bool:
        """Whether the caller has ended its side and all rows were handed out."""
        return self._is_finished and not self._chunks

    @property
    def is_at_end(self) -> bool:
        """The same: there is no bound on the rows of a caller's latents."""
        return self.is_exhausted

    def num_ready(self, most: int) -> int:
        """Rows of the oldest message that can be taken now, at most `most`."""
        return min(most, self._chunks[0].num_rows - self._chunks[0].num_taken) if self._chunks else 0

    def take(self, count: int) -> Rows:
        """Hand out the next rows."""
        chunk = self._chunks[0]
        first = chunk.num_taken
        chunk.num_taken += count
        if chunk.num_taken == chunk.num_rows:
            self._chunks.popleft()
        if self._num_waiting() <= self._max_backlog_rows:
            self._has_room.set()
        indices = tuple(range(self.next_index, self.next_index + count))
        self.next_index += count
        return Rows(indices=indices, load=lambda: chunk.load(first, first + count))

    def add(self, entry: Entry, num_rows: int, load: Callable[[int, int], EngineInputs]) -> None:
        """Append the latents of one message.

        Args:
            entry: Where they enter the engine.
            num_rows: How many; none is no change.
            load: Makes rows first to last (exclusive) of them ready for the engine.
        """
        if num_rows:
            self._chunks.append(_Chunk(entry, num_rows, load))
            if self._num_waiting() > self._max_backlog_rows:
                self._has_room.clear()
            self._on_change()

    def finish(self) -> None:
        """Say that the caller has ended its side."""
        self._is_finished = True
        self._on_change()

    async def wait_for_room(self) -> None:
        """Wait until few enough rows wait, so that the next message may be read."""
        await self._has_room.wait()

    def _num_waiting(self) -> int:
        return sum(chunk.num_rows - chunk.num_taken for chunk in self._chunks)
