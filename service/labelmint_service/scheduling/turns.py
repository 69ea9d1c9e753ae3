"""Turns: whose row is next. Round-robin between clients, then between the streams of a client; priorities go first.

Callers that are not told apart are a client each. A client of a higher priority goes before all lower ones, but for one
row in `LOWER_EVERY`, which the lower priorities get in turn: they are slow then, and never starve.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

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


@dataclass(slots=True)
class _Client(Generic[_StreamT]):
    """The streams of one client, the next one first."""

    key: str | _StreamT
    streams: deque[_StreamT] = field(default_factory=deque)


class Turns(Generic[_StreamT]):
    """Streams of all clients, in the order of their turns."""

    def __init__(self) -> None:
        self._levels: dict[int, deque[_Client[_StreamT]]] = {}
        self._rows_of_highest = 0
        self._lower_turns = 0

    def __iter__(self) -> Iterator[_StreamT]:
        """All streams, those first whose turn comes first."""
        for _, level in sorted(self._levels.items(), reverse=True):
            for client in level:
                yield from client.streams

    def add(self, stream: _StreamT) -> None:
        """Let a stream have turns, after those that have them already."""
        level = self._levels.setdefault(stream.priority, deque())
        key = stream.client or stream
        client = next((one for one in level if one.key == key), None)
        if client is None:
            client = _Client[_StreamT](key)
            level.append(client)
        client.streams.append(stream)

    def remove(self, stream: _StreamT) -> None:
        """Let a stream have no turns any more."""
        level = self._levels[stream.priority]
        client = next(one for one in level if one.key == (stream.client or stream))
        client.streams.remove(stream)
        if not client.streams:
            level.remove(client)
        if not level:
            del self._levels[stream.priority]

    def share(self, space: int, entry: Entry | None, ready: Mapping[_StreamT, int]) -> dict[_StreamT, int]:
        """Give rows to streams.

        Args:
            space: Rows to give.
            entry: Where all of them enter the engine; None lets the first one say.
            ready: Rows that each stream has.

        Returns:
            Rows of each stream that got some. Streams that only the entry kept from their turn have it next time.
        """
        shares: dict[_StreamT, int] = {}
        left = dict(ready)
        for _ in range(space):
            stream = self._next(entry, left)
            if stream is None:
                break
            entry = stream.entry
            left[stream] -= 1
            shares[stream] = shares.get(stream, 0) + 1
        return shares

    def _next(self, entry: Entry | None, left: Mapping[_StreamT, int]) -> _StreamT | None:
        """The stream whose turn it is, which goes to the end."""
        found = {level: self._find(level, entry, left) for level in sorted(self._levels, reverse=True)}
        levels = [level for level, place in found.items() if place is not None]
        if not levels:
            return None
        level = levels[0]
        if len(levels) > 1:
            self._rows_of_highest += 1
            if self._rows_of_highest == LOWER_EVERY:
                self._rows_of_highest = 0
                level = levels[1 + self._lower_turns % (len(levels) - 1)]
                self._lower_turns += 1
        place = found[level]
        assert place is not None
        client, stream = place
        self._levels[level].remove(client)
        self._levels[level].append(client)
        client.streams.remove(stream)
        client.streams.append(stream)
        return stream

    def _find(
        self, level: int, entry: Entry | None, left: Mapping[_StreamT, int]
    ) -> tuple[_Client[_StreamT], _StreamT] | None:
        for client in self._levels[level]:
            for stream in client.streams:
                if left.get(stream) and entry in {None, stream.entry}:
                    return client, stream
        return None
