"""The scheduler in simulated time, whatever comes, has limits, fails, reads slowly or leaves, on one engine or more."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labelmint.bundle import open_bundle
from labelmint_service.errors import (
    DrainingError,
    EngineLostError,
    EngineMemoryError,
    EngineRunError,
    LateError,
    NonFiniteSampleError,
    QueueFullError,
    QuotaError,
    QuotaStoreError,
    StreamLimitError,
)
from labelmint_service.scheduling.rows import Entry
from labelmint_service.scheduling.turns import LOWER_EVERY
from tests.service.simulated_clients import burst_of, windows_above
from tests.service.simulated_plans import FAULTS, Limits, Scenario, StreamPlan
from tests.service.simulated_serving import ENGINE_TIMEOUT_S, Fill, SimulatedStream, World
from tests.service.simulated_time import StandstillError

Play: TypeAlias = Callable[[Scenario], World]

seconds = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 10.0])
busy_plans = st.builds(
    StreamPlan,
    client=st.sampled_from(["", "a", "b"]),
    priority=st.integers(0, 1),
    entry=st.sampled_from(list(Entry)),
    num_rows=st.integers(1, 60),
    window=st.just(1000),
)
plans = st.builds(
    replace,
    busy_plans,
    num_rows=st.integers(1, 30),
    window=st.integers(1, 12),
    arrives_s=seconds,
    read_s=seconds,
    load_s=seconds,
    stays_s=st.none() | seconds,
    deadline_s=st.none() | seconds,
    bad_row=st.none() | st.integers(0, 10),
    unmade_row=st.none() | st.integers(0, 10),
)
rates = st.sampled_from([0.3, 1.0, 2.5, 8.0, 40.0])
limits = st.builds(
    Limits,
    samples_per_second=st.none() | rates,
    samples_per_day=st.none() | st.integers(1, 40),
    max_streams=st.none() | st.integers(1, 2),
)
scenarios = st.builds(
    Scenario,
    streams=st.lists(plans, min_size=1, max_size=8),
    batch_size=st.integers(1, 6),
    run_s=st.lists(st.sampled_from([0.01, 0.5, 1.0, 7.0]), min_size=1, max_size=3),
    faults=st.dictionaries(st.integers(0, 12), st.sampled_from(sorted(FAULTS)), max_size=5),
    max_streams=st.sampled_from([2, 100]),
    max_waiting=st.sampled_from([1, 100]),
    drains_s=st.none() | seconds,
    limits=st.dictionaries(st.sampled_from(["a", "b"]), limits),
    day_ends_s=st.sampled_from([0.5, 3.0, 5_000.0]),
    write_s=st.sampled_from([0.0, 0.05, 2.0]),
    bad_writes=st.sets(st.integers(0, 4), max_size=1),
)
busy_scenarios = st.builds(
    Scenario,
    streams=st.lists(busy_plans, min_size=2, max_size=6),
    batch_size=st.integers(1, 6),
    run_s=st.lists(st.sampled_from([0.5, 1.0]), min_size=1, max_size=2),
)
busy_scenarios_with_limits = st.builds(
    replace, busy_scenarios, limits=st.dictionaries(st.just("a"), st.builds(Limits, samples_per_second=rates))
)
equal_scenarios = st.builds(
    replace,
    busy_scenarios,
    streams=st.lists(st.builds(replace, busy_plans, priority=st.just(0)), min_size=2, max_size=6),
)
crowded_scenarios = st.builds(
    Scenario,
    streams=st.lists(st.builds(replace, busy_plans, arrives_s=seconds), min_size=4, max_size=10),
    batch_size=st.integers(1, 2),
    run_s=st.lists(st.sampled_from([0.5, 7.0]), min_size=1, max_size=2),
    max_waiting=st.integers(1, 3),
)
long_scenarios = st.builds(
    Scenario,
    streams=st.lists(st.builds(replace, busy_plans, num_rows=st.integers(1, 400)), min_size=2, max_size=4),
    batch_size=st.integers(1, 3),
)


@st.composite
def scenarios_with_room(draw: st.DrawFn) -> Scenario:
    """Where a client with a rate, among others that always want more, may have twice its rate in turn."""
    others = draw(st.lists(st.sampled_from(["", "b", "c"]), max_size=3))
    batch_size, run_s = draw(st.integers(2, 8)), draw(st.sampled_from([0.05, 0.1, 0.2]))
    share = batch_size / run_s / (len(others) + 1)
    entry = draw(st.sampled_from(list(Entry)))
    numbers = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    return Scenario(
        streams=[
            *(StreamPlan(client=other, entry=entry, num_rows=1000, window=1000, stays_s=3.0) for other in others),
            *(StreamPlan(client="a", entry=entry, num_rows=number, window=1000) for number in numbers),
        ],
        batch_size=batch_size,
        run_s=[run_s],
        limits={"a": Limits(samples_per_second=min(draw(rates), share / 2))},
    )


@pytest.fixture(scope="module")
def play(bundles: dict[str, Path]) -> Play:
    bundle = open_bundle(bundles["tiny"])
    return lambda scenario: World(scenario, bundle).play()


@settings(max_examples=100)
@given(scenario=scenarios)
@example(scenario=Scenario(streams=[StreamPlan(num_rows=4, unmade_row=2), StreamPlan(num_rows=9)]))
@example(scenario=Scenario(streams=[StreamPlan(num_rows=8, unmade_row=4)], run_s=[7.0, 0.5]))
def test_every_row_comes_once_and_in_order_or_its_stream_learns_why(play: Play, scenario: Scenario) -> None:
    world = play(scenario)

    for stream in world.streams:
        assert stream.got == [(stream.number, index) for index in range(len(stream.got))]
        assert len(stream.got) <= stream.num_taken <= stream.plan.num_rows
        assert ending_is_right(stream, world), (stream.plan, stream.error, stream.refusal)


@settings(max_examples=100)
@given(scenario=scenarios)
def test_no_bound_is_passed_and_nothing_is_computed_for_those_who_have_gone(play: Play, scenario: Scenario) -> None:
    world = play(scenario)

    assert world.most_streams <= scenario.max_streams
    for run in world.runs:
        assert len(run.rows) <= run.batch_size
        assert not run.gone
        assert len(set(run.rows)) == len(run.rows)
        assert len({scenario.streams[number].entry for number, _ in run.rows}) == 1
    for stream in world.streams:
        runs = [run for run in world.runs if any(number == stream.number for number, _ in run.rows)]
        # Where memory runs out a batch is computed in parts, and whatever befalls one has the others computed again.
        spoiling = world.runs if "memory" in scenario.faults.values() else runs
        num_spoilt = sum(run.failed or has_bad_row(run.rows, scenario) for run in spoiling)
        for index in range(stream.num_taken):
            computed = sum((stream.number, index) in run.rows for run in runs)
            assert computed <= 1 + num_spoilt


@settings(max_examples=50)
@given(scenario=crowded_scenarios)
def test_no_stream_is_let_in_while_as_many_wait_as_may(play: Play, scenario: Scenario) -> None:
    assert play(scenario).most_waiting <= scenario.max_waiting


@settings(max_examples=50)
@given(scenario=equal_scenarios)
def test_busy_clients_get_the_same_within_a_batch_over_any_time(play: Play, scenario: Scenario) -> None:
    world = play(scenario)
    is_mixed = len({plan.entry for plan in scenario.streams}) > 1
    apart = scenario.batch_size + 1 if is_mixed else 1  # where one entry waits for another, a batch goes to one alone

    for one, other in itertools.combinations({client_of(stream) for stream in world.streams}, 2):
        difference, lowest, highest = 0, 0, 0
        for fill in world.fills:
            if not (is_busy(one, fill) and is_busy(other, fill)):
                difference, lowest, highest = 0, 0, 0
                continue
            difference += rows_of(one, fill) - rows_of(other, fill)
            lowest, highest = min(lowest, difference), max(highest, difference)
            assert highest - lowest <= 2 * apart


@settings(max_examples=25)
@given(scenario=long_scenarios)
def test_nobody_starves(play: Play, scenario: Scenario) -> None:
    world = play(scenario)
    rounds = 2 * len(world.streams) + 1  # the batches of two entries in turn, by how many want them
    longest = rounds * (2 * len(world.streams) + scenario.batch_size)
    if len({plan.priority for plan in scenario.streams}) > 1:
        longest *= LOWER_EVERY

    waited = dict.fromkeys(world.streams, 0)
    for fill in world.fills:
        for stream in world.streams:
            if not fill.ready.get(stream) or stream in fill.taken:
                waited[stream] = 0
            else:
                waited[stream] += sum(fill.taken.values())
                assert waited[stream] <= longest


@settings(max_examples=60)
@given(scenario=busy_scenarios)
def test_no_engine_is_idle_while_rows_wait(play: Play, scenario: Scenario) -> None:
    """A batch gets all rows that fit it, and all takes as long as these batches take on all engines at once."""
    world = play(scenario)
    assert sum(len(run.rows) for run in world.runs) == sum(plan.num_rows for plan in scenario.streams)
    for fill in world.fills:
        entries = {stream.entry for stream in fill.taken}
        fitting = sum(count for stream, count in fill.ready.items() if stream.entry in entries)
        assert sum(fill.taken.values()) == min(fill.space, fitting)
    rate = sum(1 / run_s for run_s in scenario.run_s)
    assert world.clock.now_s <= len(world.runs) / rate + max(scenario.run_s)


@settings(max_examples=100)
@given(scenario=scenarios)
def test_client_gets_no_more_than_its_limits_over_all_its_streams(play: Play, scenario: Scenario) -> None:
    """And never a row that is not written down; see SimulatedClient."""
    world = play(scenario)

    for name, client in world.clients.items():
        assert windows_above(client.takings) == []
        most = client.limits.samples_per_day
        assert most is None or all(count <= most for count in client.used.values())
        assert client.limits.max_streams is None or client.most_streams <= client.limits.max_streams
        streams = [stream for stream in world.streams if stream.plan.client == name]
        assert sum(client.used.values()) == sum(stream.num_taken for stream in streams)


@settings(max_examples=60)
@given(scenario=scenarios_with_room())
def test_client_gets_all_of_its_rate_where_there_is_room(play: Play, scenario: Scenario) -> None:
    client = play(scenario).clients["a"]
    rate = client.limits.samples_per_second
    assert rate is not None

    run_s, burst = scenario.run_s[0], burst_of(rate)
    wanted = sum(plan.num_rows for plan in scenario.streams if plan.client == "a")
    soonest_s = max((wanted - burst) / rate, wanted / (2 * rate))
    # Whoever may save no more than a sample loses what it would save while it waits for its turn.
    lost_s = 3 * run_s * wanted if burst == 1 else 0.0
    assert sum(client.used.values()) == wanted
    assert client.taken_s[-1] <= soonest_s + max(1, burst // 10) / rate + 4 * run_s + lost_s


@settings(max_examples=60)
@given(scenario=busy_scenarios_with_limits)
def test_no_engine_is_idle_while_rows_of_clients_without_limits_wait(play: Play, scenario: Scenario) -> None:
    world = play(scenario)

    unlimited = {stream.number for stream in world.streams if stream.plan.client not in scenario.limits}
    last_s = max((run.began_s for run in world.runs if unlimited & {number for number, _ in run.rows}), default=0.0)
    for fill in world.fills:
        entries = {stream.entry for stream in fill.taken}
        fitting = sum(count for stream, count in fill.ready.items() if stream.entry in entries)
        assert sum(fill.taken.values()) == min(fill.space, fitting)
    at_work_s = sum(min(run.ended_s, last_s) - run.began_s for run in world.runs if run.began_s < last_s)
    assert at_work_s == pytest.approx(last_s * len(scenario.run_s))


def test_rows_that_a_stream_did_not_get_are_free_for_streams_of_other_models(play: Play) -> None:
    """Also while its own model is busy: its next batch is full, so that it is asked for nothing."""
    streams = [StreamPlan(client=client, num_rows=20, window=20) for client in ("a", "", "", "")]
    limits = {"a": Limits(samples_per_second=8.0)}
    world = play(Scenario(streams=streams, batch_size=8, run_s=[50.0], limits=limits, elsewhere_s=40.0))

    assert world.clients["a"].num_ready_elsewhere == 8


def test_engine_that_shrinks_below_a_full_batch_takes_no_more_than_it_holds(play: Play) -> None:
    streams = [StreamPlan(client=client, num_rows=20) for client in ("a", "", "")]
    limits = {"a": Limits(samples_per_second=8.0)}
    world = play(Scenario(streams=streams, batch_size=6, faults={1: "memory"}, limits=limits))

    assert min(run.batch_size for run in world.runs) < 6
    assert all(len(run.rows) <= run.batch_size for run in world.runs)


def test_lost_engine_ends_all_streams_and_nothing_follows_a_gap(play: Play) -> None:
    scenario = Scenario(streams=[StreamPlan(num_rows=20), StreamPlan(num_rows=20, arrives_s=5.0)], run_s=[float("inf")])
    world = play(scenario)

    assert all(isinstance(stream.error, EngineLostError) for stream in world.streams)
    assert all(stream.got == [] for stream in world.streams)
    assert world.clock.now_s == pytest.approx(ENGINE_TIMEOUT_S)


def test_simulation_finds_a_stream_that_is_forgotten(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedStream, "deliver", lambda self, delivery: None)
    with pytest.raises(StandstillError):
        play(Scenario(streams=[StreamPlan()]))


def ending_is_right(stream: SimulatedStream, world: World) -> bool:
    """Whether a stream ended as its plan, and what befell the engines, allow."""
    plan, drains_s, error = stream.plan, world.scenario.drains_s, stream.refusal or stream.error
    if stream.has_left:
        return True
    if error is None:
        num_wanted = plan.num_rows if drains_s is None else stream.num_taken
        return len(stream.got) == num_wanted
    alone = [run for run in world.runs if {number for number, _ in run.rows} == {stream.number}]
    reasons: dict[type[Exception], bool] = {
        StreamLimitError: world.most_streams == world.scenario.max_streams,
        QueueFullError: stream.num_waiting >= world.scenario.max_waiting,
        DrainingError: drains_s is not None and drains_s <= plan.arrives_s,
        LateError: plan.deadline_s is not None and (stream.refusal is not None or stream.is_late),
        NonFiniteSampleError: plan.bad_row == len(stream.got),
        MemoryError: len(stream.got) == taken_before(plan.unmade_row, stream, world),
        EngineRunError: any(run.failed for run in alone),
        EngineMemoryError: any(run.failed for run in alone),
        QuotaError: stream.was_at_limit,
        QuotaStoreError: world.disk.num_failed > 0,
    }
    return reasons[type(error)]


def taken_before(row: int | None, stream: SimulatedStream, world: World) -> int | None:
    """Rows that were taken from a stream before those among which one is; None if that was not taken."""
    first = 0
    for fill in world.fills:
        last = first + fill.taken.get(stream, 0)
        if row is not None and first <= row < last:
            return first
        first = last
    return None


def has_bad_row(rows: list[tuple[int, int]], scenario: Scenario) -> bool:
    return any(scenario.streams[number].bad_row == index for number, index in rows)


def client_of(stream: SimulatedStream) -> Hashable:
    return stream.client or stream


def is_busy(client: Hashable, fill: Fill) -> bool:
    """Whether each of a client's streams that has rows has as many as there is room for, and one has."""
    counts = [count for stream, count in fill.ready.items() if client_of(stream) == client and count]
    return bool(counts) and min(counts) == fill.space


def rows_of(client: Hashable, fill: Fill) -> int:
    return sum(count for stream, count in fill.taken.items() if client_of(stream) == client)
