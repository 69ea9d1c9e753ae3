"""Turns: even between clients, then between their streams; priorities go first, and nobody starves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from labelmint_service.scheduling.rows import Entry
from labelmint_service.scheduling.turns import LOWER_EVERY, Turns


@dataclass(eq=False)
class Stream:
    client: str = ""
    priority: int = 0
    entry: Entry = Entry.LATENTS
    left: int = 10**9
    got: int = field(default=0)


def run(streams: list[Stream], batches: int, space: int) -> list[dict[Stream, int]]:
    """Fill batches; checks that nobody gets more than it has and no batch more than fits."""
    turns = Turns[Stream]()
    for stream in streams:
        turns.add(stream)
    given_out = []
    for _ in range(batches):
        ready = {stream: min(stream.left, space) for stream in turns}
        shares = turns.share(space, None, ready)
        assert sum(shares.values()) <= space
        assert len({stream.entry for stream in shares}) <= 1
        if any(ready.values()):
            assert shares
        if len({stream.entry for stream in streams}) == 1:
            assert sum(shares.values()) == min(space, sum(ready.values())), "room was left although there was work"
        for stream, count in shares.items():
            assert 0 < count <= ready[stream]
            stream.left -= count
            stream.got += count
        given_out.append(shares)
    return given_out


spaces = st.integers(1, 16)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(1, 30), spaces)
def test_busy_clients_get_the_same_to_within_one_row_however_many_streams_they_have(
    names: list[str], batches: int, space: int
) -> None:
    streams = [Stream(client=name) for name in names]
    run(streams, batches, space)
    clients: Counter[str] = Counter()
    for stream in streams:
        clients[stream.client] += stream.got
    assert max(clients.values()) - min(clients.values()) <= 1
    for name in clients:
        rows = [stream.got for stream in streams if stream.client == name]
        assert max(rows) - min(rows) <= 1


@given(st.integers(1, 12), st.integers(1, 30), spaces)
def test_callers_that_are_not_told_apart_are_a_client_each(count: int, batches: int, space: int) -> None:
    streams = [Stream() for _ in range(count)]
    run(streams, batches, space)
    assert max(stream.got for stream in streams) - min(stream.got for stream in streams) <= 1


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(-2, 2)), min_size=1, max_size=8),
    st.integers(1, 40),
    spaces,
)
def test_higher_priorities_go_first_and_lower_ones_do_not_starve(
    kinds: list[tuple[str, int]], batches: int, space: int
) -> None:
    streams = [Stream(client=client, priority=priority) for client, priority in kinds]
    run(streams, batches, space)
    rows: Counter[int] = Counter()
    for stream in streams:
        rows[stream.priority] += stream.got
    total, levels = batches * space, sorted(rows, reverse=True)
    lower = total // LOWER_EVERY if len(levels) > 1 else 0
    assert rows[levels[0]] == total - lower
    shares = [rows[level] for level in levels[1:]]
    assert not shares or max(shares) - min(shares) <= 1


@given(st.lists(st.tuples(st.sampled_from(list(Entry)), st.integers(0, 5)), min_size=1, max_size=8), spaces)
def test_all_rows_come_out_whatever_their_entries(kinds: list[tuple[Entry, int]], space: int) -> None:
    streams = [Stream(entry=entry, left=left) for entry, left in kinds]
    batches = run(streams, sum(left for _, left in kinds) + 1, space)
    assert [stream.got for stream in streams] == [left for _, left in kinds]
    assert not batches[-1]


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(list(Entry))), min_size=1, max_size=12),
    st.integers(1, 60),
    spaces,
)
def test_busy_clients_are_no_more_than_a_batch_apart_whatever_their_entries(
    kinds: list[tuple[str, Entry]], batches: int, space: int
) -> None:
    """A client that is alone at its entry fills its batches alone, and waits until the others have had as much.

    One with rows at both entries may be one row further ahead, for which it was next at the other one.
    """
    streams = [Stream(client=client, entry=entry) for client, entry in kinds]
    run(streams, batches, space)
    clients: Counter[str] = Counter()
    for stream in streams:
        clients[stream.client] += stream.got
    assert max(clients.values()) - min(clients.values()) <= space + 1
    for name in clients:
        rows = [stream.got for stream in streams if stream.client == name]
        assert max(rows) - min(rows) <= space


@given(st.lists(st.booleans(), min_size=1, max_size=60), spaces)
def test_who_was_away_comes_back_as_if_it_had_been_there(is_there: list[bool], space: int) -> None:
    """Time away is not made up for, or those who stayed would wait."""
    stayed, away = Stream(), Stream()
    turns = Turns[Stream]()
    turns.add(stayed)
    turns.add(away)
    for is_ready in is_there:
        turns.share(space, None, {stayed: space, away: space * is_ready})
    later = [turns.share(1, None, {stayed: 1, away: 1}) for _ in range(20)]
    assert abs(sum(away in share for share in later) - 10) <= 1


def test_stream_that_the_entry_kept_from_its_turn_has_it_next() -> None:
    first, second, third = Stream(), Stream(entry=Entry.STYLES), Stream()
    batches = run([first, second, third], 2, 2)
    assert batches == [{first: 1, third: 1}, {second: 2}]


def test_priority_that_stands_alone_loses_nothing() -> None:
    alone = Stream(priority=-100)
    run([alone], 10, 8)
    assert alone.got == 80


def test_streams_come_and_go() -> None:
    turns = Turns[Stream]()
    one, other, third = Stream(client="a"), Stream(client="a"), Stream(client="b", priority=3)
    for stream in (one, other, third):
        turns.add(stream)
    assert list(turns) == [third, one, other]
    turns.remove(third)
    turns.remove(one)
    assert turns.share(4, None, {other: 4}) == {other: 4}
    turns.remove(other)
    assert list(turns) == []
    turns.add(third)
    assert turns.share(1, Entry.LATENTS, {third: 1}) == {third: 1}
