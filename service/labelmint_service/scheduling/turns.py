"""Turns: whose row is next. Clients get the same number of rows, and of each client its streams; priorities go first.

Callers that are not told apart are a client each. Whoever has had the fewest rows is next, and of several the one whose
last row is longest ago; as long as every batch has room for all, that is round-robin. The rows of a batch share an
entry into the engine, so that a client may have a batch alone; then it waits until others have had as many (start-time
fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996). A client that wants rows at both entries stands twice among the
others, and each place gets the part of the client's rows that belongs to the streams there. Time in which nothing was
wanted is not made up for.

A client of a higher priority goes before all lower ones, but for one row in `LOWER_EVERY`, which the lower priorities
get in turn: they are slow then, and never starve. If that row does not fit the batch, the next batch begins with it.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
_Key: TypeAlias = tuple[float, int]


@dataclass(slots=True)
class _Place:
    """Where one stands among others.

    Attributes:
        had: Rows that it has had, or counts as having had.
        last: Number of its last row, or of when it came.
        was_ready: Whether it wanted rows when they were last given.
    """

    had: float
    last: int
    was_ready: bool = False

    @property
    def key(self) -> _Key:
        """Smaller is next; no two are the same."""
        return self.had, self.last

    def advance(self, rows: float, number: int) -> None:
        """Count what it was given."""
        self.had += rows
        self.last = number


@dataclass(slots=True)
class _Client(Generic[_StreamT]):
    """A client.

    Attributes:
        places: Among all clients, by entry.
        streams: Its streams, with their places among each other.
    """

    places: dict[Entry, _Place] = field(default_factory=dict)
    streams: dict[_StreamT, _Place] = field(default_factory=dict)


@dataclass(slots=True)
class _Level(Generic[_StreamT]):
    """The clients of one priority.

    Attributes:
        place: Among the lower priorities.
        clients: By name; those without one by their stream.
    """

    place: _Place
    clients: dict[str | _StreamT, _Client[_StreamT]] = field(default_factory=dict)


class Turns(Generic[_StreamT]):
    """Streams of all clients, in the order of their turns."""

    def __init__(self) -> None:
        self._levels: dict[int, _Level[_StreamT]] = {}
        self._numbers = itertools.count()
        self._owed = 0  # to lower priorities, in parts of a row: LOWER_EVERY - 1 of them are one

    def __iter__(self) -> Iterator[_StreamT]:
        """All streams, those first whose turn comes first."""
        for _, level in sorted(self._levels.items(), reverse=True):
            clients = level.clients.values()
            for client in sorted(clients, key=lambda client: min(place.key for place in client.places.values())):
                yield from sorted(client.streams, key=lambda stream: client.streams[stream].key)

    def add(self, stream: _StreamT) -> None:
        """Let a stream have turns, after those that have them already."""
        if stream.priority not in self._levels:
            self._levels[stream.priority] = _Level(self._new_place([level.place for level in self._levels.values()]))
        level = self._levels[stream.priority]
        client = level.clients.setdefault(stream.client or stream, _Client())
        client.streams[stream] = self._new_place(client.streams.values())
        self._let_stand(level, client, stream.entry)

    def remove(self, stream: _StreamT) -> None:
        """Let a stream have no turns any more."""
        clients, name = self._levels[stream.priority].clients, stream.client or stream
        del clients[name].streams[stream]
        if not clients[name].streams:
            del clients[name]
        if not clients:
            del self._levels[stream.priority]

    def share(self, space: int, entry: Entry | None, ready: Mapping[_StreamT, int]) -> dict[_StreamT, int]:
        """Give rows to streams.

        Args:
            space: Rows to give.
            entry: Where all of them enter the engine; None takes that of the stream whose turn it is.
            ready: Rows that each stream has.

        Returns:
            Rows of each stream that got some.
        """
        shares: dict[_StreamT, int] = {}
        left = {stream: count for stream, count in ready.items() if count}
        if not space or not left:
            return shares
        lines = {priority: self._line_up(level, left) for priority, level in self._levels.items()}
        _come_back((level.place, any(lines[priority])) for priority, level in self._levels.items())
        for _ in range(space):
            priorities = sorted((priority for priority in lines if any(lines[priority])), reverse=True)
            line = self._whose_turn(priorities, lines, entry)
            if line is None:
                break
            number = next(self._numbers)
            stream = line.give(number)
            shares[stream] = shares.get(stream, 0) + 1
            entry = line.entry
            if stream.priority < priorities[0]:
                self._owed -= LOWER_EVERY - 1
                self._levels[stream.priority].place.advance(1, number)
            elif len(priorities) > 1:
                self._owed += 1
        return shares

    def _whose_turn(
        self, priorities: Sequence[int], lines: Mapping[int, Sequence[_Line[_StreamT]]], entry: Entry | None
    ) -> _Line[_StreamT] | None:
        """Where the next row comes from; None if nobody has one for the batch.

        Args:
            priorities: Those with rows left, the highest first.
            lines: Theirs.
            entry: That of the batch; None if it may be any.
        """
        if len(priorities) > 1 and self._owed >= LOWER_EVERY - 1:
            lower = min(priorities[1:], key=lambda priority: self._levels[priority].place.key)
            line = min(filter(None, lines[lower]), key=lambda line: line.key)
            if entry in {None, line.entry}:
                return line
        for priority in priorities:
            fitting = [line for line in lines[priority] if line and entry in {None, line.entry}]
            if fitting:
                return min(fitting, key=lambda line: line.key)
        return None

    def _new_place(self, others: Collection[_Place]) -> _Place:
        """A place after the others, of whom those who have had the fewest rows have one more before it."""
        had = [place.had for place in others if place.was_ready] or [place.had for place in others] or [0]
        return _Place(min(had) + (min(had) < max(had)), next(self._numbers))

    def _let_stand(self, level: _Level[_StreamT], client: _Client[_StreamT], entry: Entry) -> None:
        if entry not in client.places:
            places = [place for other in level.clients.values() for place in other.places.values()]
            client.places[entry] = self._new_place(places)

    def _line_up(self, level: _Level[_StreamT], left: dict[_StreamT, int]) -> list[_Line[_StreamT]]:
        """The clients of one priority that have rows left, a line for each entry."""
        wanted: list[tuple[_Client[_StreamT], Counter[Entry]]] = []
        for client in level.clients.values():
            entries = Counter(stream.entry for stream in client.streams if stream in left)
            wanted.append((client, entries))
            for entry in entries:
                self._let_stand(level, client, entry)
            _come_back((place, stream in left) for stream, place in client.streams.items())
        _come_back((place, entry in entries) for client, entries in wanted for entry, place in client.places.items())
        lines = {entry: _Line[_StreamT](entry, left) for entry in Entry}
        for client, entries in wanted:
            for entry, count in entries.items():
                lines[entry].add(client, rows_of_one=entries.total() / count)
        return list(lines.values())


def _come_back(places: Iterable[tuple[_Place, bool]]) -> None:
    """Let those who were away, and are ready again, count as having had no less than those who stayed.

    Args:
        places: Each with whether it is ready.
    """
    all_places = list(places)
    stayed = [place.had for place, is_ready in all_places if is_ready and place.was_ready]
    base = min(stayed) if stayed else max((place.had for place, _ in all_places), default=0)
    for place, is_ready in all_places:
        if is_ready and not place.was_ready:
            place.had = max(place.had, base)
        place.was_ready = is_ready


class _Line(Generic[_StreamT]):
    """The clients of one priority that want rows at one entry, as heaps: whose turn it is stands first.

    Args:
        entry: Theirs.
        left: Rows that each stream still has; counted down here.

    Attributes:
        entry: Theirs.
    """

    def __init__(self, entry: Entry, left: dict[_StreamT, int]) -> None:
        self.entry = entry
        self._left = left
        self._clients: list[tuple[_Key, _Place, float, list[tuple[_Key, _Place, _StreamT]]]] = []

    def __bool__(self) -> bool:
        """Whether anyone has rows left."""
        return bool(self._clients)

    @property
    def key(self) -> _Key:
        """That of the place whose turn it is."""
        return self._clients[0][0]

    def add(self, client: _Client[_StreamT], *, rows_of_one: float) -> None:
        """Let a client stand here.

        Args:
            client: One that has rows left here.
            rows_of_one: What a row counts for: more than one if only part of what is the client's belongs here.
        """
        place = client.places[self.entry]
        streams = [
            (own.key, own, stream)
            for stream, own in client.streams.items()
            if stream in self._left and stream.entry is self.entry
        ]
        heapq.heapify(streams)
        heapq.heappush(self._clients, (place.key, place, rows_of_one, streams))

    def give(self, number: int) -> _StreamT:
        """Give a row, of this number, to the stream whose turn it is."""
        _, client, rows_of_one, streams = self._clients[0]
        _, own, stream = streams[0]
        client.advance(rows_of_one, number)
        own.advance(1, number)
        self._left[stream] -= 1
        if self._left[stream]:
            heapq.heapreplace(streams, (own.key, own, stream))
        else:
            heapq.heappop(streams)
        if streams:
            heapq.heapreplace(self._clients, (client.key, client, rows_of_one, streams))
        else:
            heapq.heappop(self._clients)
        return stream
