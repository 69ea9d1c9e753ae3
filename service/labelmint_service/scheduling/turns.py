"""Turns: whose row is next. Round-robin between clients, then between the streams of a client; priorities go first.

Callers that are not told apart are a client each. The rows of a batch share an entry into the engine, so there is a
round for each entry, and batches are shared between the entries by how many clients want them. Such shares are kept by
start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), with a batch as what is queued for: whoever is alone at
an entry gets whole batches, but no more of them than its part. A client that wants rows at both entries counts half at
each, and passes every second turn.

A client of a higher priority goes before all lower ones, but for one row in `LOWER_EVERY` at each entry, which the
lower priorities get in turn, and for one batch in as many, if they wait for an entry that the highest one does not
want: they are slow then, and never starve. No turns are counted over both entries: who waits at one could miss its own
for ever, because they always came at the other.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from labelmint_service.scheduling.rows import Entry

LOWER_EVERY = 8


class Waiting(Protocol):
    """What has turns.

    Attributes:
        client: Name of the client; empty if clients are not told apart.
        priority: Larger goes first.
    """

    client: str
    priority: int

    @property
    def entry(self) -> Entry:
        """Where its next rows enter the engine."""
        ...


_StreamT = TypeVar("_StreamT", bound=Waiting)
_Ready: TypeAlias = "dict[Entry, dict[str | _StreamT, list[_StreamT]]]"
"""The streams that have rows, by entry and client."""


@dataclass(slots=True)
class _Client(Generic[_StreamT]):
    """A client.

    Attributes:
        last: Number of its last turn in the round of each entry, or of when it came.
        streams: Its streams, each with the same for their own rounds; a stream may change its entry.
        passed: Entries where it has passed a turn and takes the next.
    """

    last: dict[Entry, int]
    streams: dict[_StreamT, dict[Entry, int]] = field(default_factory=dict)
    passed: set[Entry] = field(default_factory=set)


@dataclass(slots=True)
class _Level(Generic[_StreamT]):
    """The clients of one priority.

    Attributes:
        last: Number of its last row at each entry, or of when it came.
        clients: By name; those without one by their stream.
        shares: Batches that each entry has had, divided by the clients that wanted them.
        entry: That of the last batch.
    """

    last: dict[Entry, int]
    clients: dict[str | _StreamT, _Client[_StreamT]] = field(default_factory=dict)
    shares: dict[Entry, float] = field(default_factory=lambda: dict.fromkeys(Entry, 0.0))
    entry: Entry | None = None

    def choose_entry(self, ready: _Ready[_StreamT]) -> Entry:
        """Give the next batch to the entry that has had the smallest share, of those that somebody has rows for."""
        least = min(self.shares[entry] for entry in ready)
        for entry in self.shares.keys() - ready.keys():  # time away is not made up for
            self.shares[entry] = max(self.shares[entry], least)
        chosen = min(ready, key=lambda entry: (self.shares[entry], entry is self.entry))
        num_entries = Counter(itertools.chain.from_iterable(ready.values()))
        self.shares[chosen] += 1 / sum(1 / num_entries[name] for name in ready[chosen])
        self.entry = chosen
        return chosen


class _Round(Generic[_StreamT]):
    """The clients of one priority that have rows at one entry, while a batch is filled.

    Args:
        level: All of that priority.
        entry: That of the batch.
        ready: Those of the level that have rows.
        left: Rows that streams have; counted down here.

    Attributes:
        level: All of that priority.
    """

    def __init__(
        self, level: _Level[_StreamT], entry: Entry, ready: _Ready[_StreamT], left: dict[_StreamT, int]
    ) -> None:
        self.level = level
        self._entry = entry
        self._left = left
        elsewhere = set().union(*(ready[other] for other in ready if other is not entry))
        clients = []
        for name, streams in ready.get(entry, {}).items():
            client = level.clients[name]
            if len(streams) > 1:
                streams.sort(key=lambda stream, own=client.streams: own[stream][entry])  # type: ignore[misc]  # a default
            clients.append((client, name in elsewhere, deque(streams)))
        self._clients = deque(sorted(clients, key=lambda one: one[0].last[entry]))

    def __bool__(self) -> bool:
        """Whether anyone has rows left."""
        return bool(self._clients)

    def give(self, number: int) -> _StreamT:
        """Give a row, the one of this number, to the stream whose turn it is."""
        client, is_elsewhere, streams = self._clients[0]
        if is_elsewhere and self._entry not in client.passed:
            client.passed.add(self._entry)
            client.last[self._entry] = number - 1
            self._clients.rotate(-1)
            client, _, streams = self._clients[0]
        client.passed.discard(self._entry)
        stream = streams.popleft()
        client.last[self._entry] = client.streams[stream][self._entry] = self.level.last[self._entry] = number
        self._left[stream] -= 1
        if self._left[stream]:
            streams.append(stream)
        if streams:
            self._clients.rotate(-1)
        else:
            self._clients.popleft()
        return stream


class Turns(Generic[_StreamT]):
    """Streams of all clients, in the order of their turns."""

    def __init__(self) -> None:
        self._levels: dict[int, _Level[_StreamT]] = {}
        self._numbers = itertools.count(1, step=2)  # the one in between is that of a turn that was passed
        self._rows_of_highest = dict.fromkeys(Entry, 0)
        self._batches_of_highest = 0

    def __iter__(self) -> Iterator[_StreamT]:
        """All streams, of each client those first whose turn comes first."""
        for _, level in sorted(self._levels.items(), reverse=True):
            for client in level.clients.values():
                streams = client.streams
                yield from sorted(streams, key=lambda stream: streams[stream][stream.entry])

    def add(self, stream: _StreamT) -> None:
        """Let a stream have turns, after those that have them already."""
        number = next(self._numbers)
        level = self._levels.setdefault(stream.priority, _Level(dict.fromkeys(Entry, number)))
        client = level.clients.setdefault(stream.client or stream, _Client(dict.fromkeys(Entry, number)))
        client.streams[stream] = dict.fromkeys(Entry, number)

    def remove(self, stream: _StreamT) -> None:
        """Let a stream have no turns any more."""
        level, name = self._levels[stream.priority], stream.client or stream
        del level.clients[name].streams[stream]
        if not level.clients[name].streams:
            del level.clients[name]
        if not level.clients:
            del self._levels[stream.priority]

    def share(self, space: int, entry: Entry | None, ready: Mapping[_StreamT, int]) -> dict[_StreamT, int]:
        """Give rows to streams.

        Args:
            space: Rows to give.
            entry: Where all of them enter the engine; None begins a batch, at the entry whose turn it is.
            ready: Rows that each stream has.

        Returns:
            Rows of each stream that got some.
        """
        shares: dict[_StreamT, int] = {}
        left = {stream: count for stream, count in ready.items() if count}
        if not space or not left:
            return shares
        by_priority: dict[int, _Ready[_StreamT]] = {}
        for stream in left:
            clients = by_priority.setdefault(stream.priority, {}).setdefault(stream.entry, {})
            clients.setdefault(stream.client or stream, []).append(stream)
        if entry is None:
            entry = self._begin_batch(by_priority)
        rounds = {
            priority: _Round(self._levels[priority], entry, of_level, left)
            for priority, of_level in by_priority.items()
        }
        for _ in range(space):
            waiting = {priority: clients for priority, clients in rounds.items() if clients}
            if not waiting:
                break
            stream = self._whose_turn(waiting, entry).give(next(self._numbers))
            shares[stream] = shares.get(stream, 0) + 1
        return shares

    def _begin_batch(self, ready: Mapping[int, _Ready[_StreamT]]) -> Entry:
        """The entry of the next batch, by what each priority has rows for."""
        highest = max(ready)
        others = {entry for of_level in ready.values() for entry in of_level} - ready[highest].keys()
        if others:
            self._batches_of_highest += 1
            if self._batches_of_highest == LOWER_EVERY:
                self._batches_of_highest = 0
                return others.pop()
        return self._levels[highest].choose_entry(ready[highest])

    def _whose_turn(self, rounds: Mapping[int, _Round[_StreamT]], entry: Entry) -> _Round[_StreamT]:
        """The one that has the next row, of those that have one for the batch, by priority."""
        highest = max(rounds)
        if len(rounds) == 1:
            return rounds[highest]
        self._rows_of_highest[entry] += 1
        if self._rows_of_highest[entry] < LOWER_EVERY:
            return rounds[highest]
        self._rows_of_highest[entry] = 0
        return min(
            (of_level for priority, of_level in rounds.items() if priority != highest),
            key=lambda of_level: of_level.level.last[entry],
        )
