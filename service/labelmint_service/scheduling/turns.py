"""Turns: whose row is next. Round-robin between clients, then between the streams of a client; priorities go first.

Callers that are not told apart are a client each. The rows of a batch share an entry into the engine, so there is a
round for each entry, and batches are shared between the entries by how many clients want them. Such shares are kept by
start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), with a batch as what is queued for: whoever is alone at
an entry gets whole batches, but no more of them than its part. A client that wants rows at both entries counts half at
each, and passes every second turn.

A client of a higher priority goes before all lower ones, but for one row in `LOWER_EVERY`, which the lower priorities
get in turn, and for one batch in as many, if they wait for an entry that the highest one does not want: they are slow
then, and never starve.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
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
_Names: TypeAlias = "set[str | _StreamT]"


@dataclass(slots=True, eq=False)
class _Client(Generic[_StreamT]):
    """A client.

    Attributes:
        rounds: Its streams, for each entry those first whose turn comes first; a stream may change its entry.
        passed: Entries where it has passed a turn and takes the next.
    """

    rounds: dict[Entry, deque[_StreamT]] = field(default_factory=lambda: {entry: deque() for entry in Entry})
    passed: set[Entry] = field(default_factory=set)


@dataclass(slots=True)
class _Level(Generic[_StreamT]):
    """The clients of one priority.

    Attributes:
        last: Number of its last row, or of when it came.
        clients: By name; those without one by their stream.
        rounds: The same, for each entry those first whose turn comes first.
        shares: Batches that each entry has had, divided by the clients that wanted them.
        entry: That of the last batch.
    """

    last: int
    clients: dict[str | _StreamT, _Client[_StreamT]] = field(default_factory=dict)
    rounds: dict[Entry, deque[_Client[_StreamT]]] = field(default_factory=lambda: {entry: deque() for entry in Entry})
    shares: dict[Entry, float] = field(default_factory=lambda: dict.fromkeys(Entry, 0.0))
    entry: Entry | None = None

    def choose_entry(self, wanted: Mapping[Entry, _Names[_StreamT]]) -> Entry:
        """Give the next batch to the entry that has had the smallest share.

        Args:
            wanted: The clients that have rows at each entry, which has some.
        """
        least = min(self.shares[entry] for entry in wanted)
        for entry in self.shares.keys() - wanted.keys():  # time away is not made up for
            self.shares[entry] = max(self.shares[entry], least)
        chosen = min(wanted, key=lambda entry: (self.shares[entry], entry is self.entry))
        num_entries = Counter(itertools.chain.from_iterable(wanted.values()))
        self.shares[chosen] += 1 / sum(1 / num_entries[name] for name in wanted[chosen])
        self.entry = chosen
        return chosen

    def give(self, entry: Entry, left: Mapping[_StreamT, int], at_both: Collection[_Client[_StreamT]]) -> _StreamT:
        """The stream whose turn it is, which goes to the end.

        Args:
            entry: Where its row enters.
            left: Rows that streams have; one of these has a row there.
            at_both: Clients that want rows at the other entry too.
        """
        clients = self.rounds[entry]
        client, stream = self._first(entry, left)
        if client in at_both and entry not in client.passed:
            client.passed.add(entry)
            clients.remove(client)
            clients.append(client)
            client, stream = self._first(entry, left)
        client.passed.discard(entry)
        clients.remove(client)
        clients.append(client)
        client.rounds[entry].remove(stream)
        client.rounds[entry].append(stream)
        return stream

    def _first(self, entry: Entry, left: Mapping[_StreamT, int]) -> tuple[_Client[_StreamT], _StreamT]:
        return next(
            (client, stream)
            for client in self.rounds[entry]
            for stream in client.rounds[entry]
            if left.get(stream) and stream.entry is entry
        )


class Turns(Generic[_StreamT]):
    """Streams of all clients, in the order of their turns."""

    def __init__(self) -> None:
        self._levels: dict[int, _Level[_StreamT]] = {}
        self._numbers = itertools.count()
        self._rows_of_highest = 0
        self._batches_of_highest = 0

    def __iter__(self) -> Iterator[_StreamT]:
        """All streams, of each client those first whose turn comes first."""
        for _, level in sorted(self._levels.items(), reverse=True):
            for client in level.clients.values():
                for entry, streams in client.rounds.items():
                    yield from (stream for stream in streams if stream.entry is entry)

    def add(self, stream: _StreamT) -> None:
        """Let a stream have turns, after those that have them already."""
        if stream.priority not in self._levels:
            self._levels[stream.priority] = _Level(next(self._numbers))
        level, name = self._levels[stream.priority], stream.client or stream
        if name not in level.clients:
            level.clients[name] = _Client()
            for clients in level.rounds.values():
                clients.append(level.clients[name])
        for streams in level.clients[name].rounds.values():
            streams.append(stream)

    def remove(self, stream: _StreamT) -> None:
        """Let a stream have no turns any more."""
        level, name = self._levels[stream.priority], stream.client or stream
        client = level.clients[name]
        for streams in client.rounds.values():
            streams.remove(stream)
        if any(client.rounds.values()):
            return
        del level.clients[name]
        for clients in level.rounds.values():
            clients.remove(client)
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
        wanted: dict[int, dict[Entry, _Names[_StreamT]]] = {}
        for stream in left:
            wanted.setdefault(stream.priority, {}).setdefault(stream.entry, set()).add(stream.client or stream)
        if entry is None:
            entry = self._begin_batch(wanted)
        at_both = [
            self._levels[priority].clients[name]
            for priority, names in wanted.items()
            if len(names) > 1
            for name in set.intersection(*names.values())
        ]
        waiting = Counter[int]()
        for stream, count in left.items():
            if stream.entry is entry:
                waiting[stream.priority] += count
        for _ in range(min(space, waiting.total())):
            priority = self._whose_turn([priority for priority, count in waiting.items() if count])
            level = self._levels[priority]
            stream = level.give(entry, left, at_both)
            level.last = next(self._numbers)
            left[stream] -= 1
            waiting[priority] -= 1
            shares[stream] = shares.get(stream, 0) + 1
        return shares

    def _begin_batch(self, wanted: Mapping[int, Mapping[Entry, _Names[_StreamT]]]) -> Entry:
        """The entry of the next batch, of those that clients of each priority want."""
        highest = max(wanted)
        others = {entry for names in wanted.values() for entry in names} - wanted[highest].keys()
        if others:
            self._batches_of_highest += 1
            if self._batches_of_highest == LOWER_EVERY:
                self._batches_of_highest = 0
                return others.pop()
        return self._levels[highest].choose_entry(wanted[highest])

    def _whose_turn(self, priorities: Collection[int]) -> int:
        """The priority that has the next row, of those that have one for it."""
        highest = max(priorities)
        if len(priorities) == 1:
            return highest
        self._rows_of_highest += 1
        if self._rows_of_highest < LOWER_EVERY:
            return highest
        self._rows_of_highest = 0
        lower = [priority for priority in priorities if priority != highest]
        return min(lower, key=lambda priority: self._levels[priority].last)
