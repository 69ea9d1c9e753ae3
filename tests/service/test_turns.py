"""Turns: even between clients, then between their streams; priorities go first, and nobody starves."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
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
        fitting = sum(count for stream, count in ready.items() if stream.entry in {given.entry for given in shares})
        assert sum(shares.values()) == min(space, fitting), "room was left although there was work"
        for stream, count in shares.items():
            assert 0 < count <= ready[stream]
            stream.left -= count
            stream.got += count
        given_out.append(shares)
    return given_out


def rows_of_clients(streams: list[Stream]) -> Counter[str]:
    rows: Counter[str] = Counter()
    for stream in streams:
        rows[stream.client] += stream.got
    return rows


spaces = st.integers(1, 16)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(1, 30), spaces)
def test_busy_clients_get_the_same_to_within_one_row_however_many_streams_they_have(
    names: list[str], batches: int, space: int
) -> None:
    streams = [Stream(client=name) for name in names]
    run(streams, batches, space)
    clients = rows_of_clients(streams)
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
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=12),
    st.fixed_dictionaries({name: st.sampled_from(list(Entry)) for name in "abcd"}),
    st.integers(1, 60),
    spaces,
)
def test_busy_clients_are_no_more_than_a_batch_apart_whatever_their_entries(
    names: list[str], entries: dict[str, Entry], batches: int, space: int
) -> None:
    """A client that is alone at its entry fills its batches alone, and waits until the others have had as much."""
    streams = [Stream(client=name, entry=entries[name]) for name in names]
    run(streams, batches, space)
    rows = rows_of_clients(streams)
    assert max(rows.values()) - min(rows.values()) <= space + 1
    for name in rows:
        own = [stream.got for stream in streams if stream.client == name]
        assert max(own) - min(own) <= 1


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(list(Entry))), min_size=1, max_size=8), spaces)
def test_client_at_both_entries_gains_nothing(kinds: list[tuple[str, Entry]], space: int) -> None:
    streams = [Stream(client=client, entry=entry) for client, entry in kinds]
    batches = 600
    run(streams, batches, space)
    rows = rows_of_clients(streams)
    mean = batches * space / len(rows)
    assert max(abs(number - mean) for number in rows.values()) <= 3 * space + 0.02 * mean


def test_stream_that_changes_its_entry_gains_nothing() -> None:
    changing, latent, style = Stream(), Stream(), Stream(entry=Entry.STYLES)
    turns = Turns[Stream]()
    for stream in (changing, latent, style):
        turns.add(stream)
    for number in range(3000):
        changing.entry = list(Entry)[number // 3 % 2]
        for stream, count in turns.share(8, None, {changing: 8, latent: 8, style: 8}).items():
            stream.got += count
    rows = [stream.got for stream in (changing, latent, style)]
    assert max(rows) < 1.25 * min(rows), rows


def test_one_row_of_a_lower_priority_costs_no_more_than_one_batch_in_eight() -> None:
    """Whatever a batch holds, it costs an engine the same."""
    high, low = Stream(priority=1), Stream(entry=Entry.STYLES)
    turns = Turns[Stream]()
    turns.add(high)
    turns.add(low)
    batches = [turns.share(32, None, {high: 32, low: 1}) for _ in range(800)]
    assert sum(low in batch for batch in batches) == 100


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_nobody_starves_whoever_comes_goes_and_changes(seed: int) -> None:
    """One stream always has rows; others of three priorities come, go, pause and change their entries."""
    chance = random.Random(seed)
    space = chance.randint(1, 9)

    def make() -> Stream:
        return Stream(chance.choice(["", "a", "b"]), chance.randint(-1, 1), chance.choice(list(Entry)))

    turns, steady, others = Turns[Stream](), make(), [make() for _ in range(5)]
    for stream in (steady, *others):
        turns.add(stream)
    num_batches = waited = longest = 0
    while num_batches < 1500:
        num_batches += 1
        if chance.random() < 0.2:
            leaving = others.pop(chance.randrange(len(others)))
            turns.remove(leaving)
            others.append(make())
            turns.add(others[-1])
        for stream in others:
            if chance.random() < 0.1:
                stream.entry = chance.choice(list(Entry))
        ready = {stream: chance.choice([0, 1, space]) for stream in others}
        shares = turns.share(space, None, {**ready, steady: space})
        waited = 0 if steady in shares else waited + 1
        longest = max(longest, waited)
    # At worst it is the lowest of three priorities and last of six clients, at an entry that few want.
    assert longest <= 2 * LOWER_EVERY * 2 * 6


def test_lower_priorities_do_not_starve_each_other_when_one_comes_late() -> None:
    high, middle, late = (Stream(priority=priority) for priority in (2, 1, 0))
    turns = Turns[Stream]()
    turns.add(high)
    turns.add(middle)
    for _ in range(1000):
        turns.share(32, None, {high: 32, middle: 32})
    turns.add(late)
    for stream in (middle, late):
        assert stream in turns.share(32, None, {high: 32, middle: 32, late: 32})


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(Entry)), min_size=2, max_size=6, unique=True),
    st.sampled_from([1, 2, 3, 4, 7, 8, 16]),
)
def test_no_priority_starves_at_any_entry_whatever_the_others_want(wanted: list[tuple[int, Entry]], space: int) -> None:
    """Turns that are counted over both entries can fall on the other entry for ever."""
    streams = [Stream(priority=priority, entry=entry) for priority, entry in wanted]
    batches = run(streams, 3 * 2 * LOWER_EVERY * 3 * LOWER_EVERY, space)
    for stream in streams:
        places = [place for place, shares in enumerate(batches) if stream in shares]
        gaps = [after - before for before, after in itertools.pairwise([0, *places, len(batches)])]
        assert max(gaps) <= 2 * LOWER_EVERY * 2 * LOWER_EVERY


@given(st.lists(st.booleans(), min_size=1, max_size=60), spaces)
def test_who_was_away_comes_back_as_if_it_had_been_there(is_there: list[bool], space: int) -> None:
    """Time away is not made up for, or those who stayed would wait."""
    for entry in Entry:
        stayed, away = Stream(), Stream(entry=entry)
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
