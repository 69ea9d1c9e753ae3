"""Whatever callers, clocks, reloads and kills do: a rate is never exceeded over any window, nor a quota on any day."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmint.hosts import is_loopback
from labelmint_service.access.accounts import ClientAccount, ClientAllowance, Surroundings
from labelmint_service.access.clients import Client
from labelmint_service.access.quotas import DAY_S, DayUse, block_size
from labelmint_service.access.rates import RateBucket
from labelmint_service.errors import QuotaError, ServiceError

NS = 10**9
DIGEST = "0" * 64
START_S = 20_000 * DAY_S


def windows_above(taken: Sequence[tuple[int, int]], rate: float, burst: int) -> list[tuple[int, int]]:
    """Windows, as first and last taking, in which more came than rate and burst allow.

    Args:
        taken: Time in nanoseconds and number, in order.
        rate: Samples a second.
        burst: Samples at once.
    """
    numbers = [0, *itertools.accumulate(number for _, number in taken)]
    return [
        (first, last)
        for first in range(len(taken))
        for last in range(first, len(taken))
        # Whole numbers, for floats cannot tell a rounding from an excess: samples * 10**15.
        if (numbers[last + 1] - numbers[first] - burst) * 10**15
        > (taken[last][0] - taken[first][0]) * int(rate * 10**6)
    ]


@given(
    rate=st.floats(0.001, 10_000),
    steps=st.lists(st.tuples(st.integers(0, 3 * NS), st.integers(0, 5000)), max_size=60),
)
def test_bucket_never_gives_more_than_its_rate_over_any_window(rate: float, steps: list[tuple[int, int]]) -> None:
    bucket, now_ns = RateBucket(rate, 5), 5
    taken = []
    for passed_ns, wanted in steps:
        now_ns += passed_ns
        number = min(wanted, bucket.available(now_ns))
        bucket.spend(number, now_ns)
        taken.append((now_ns, number))

    assert windows_above(taken, rate, bucket.burst) == []


@given(rate=st.floats(0.01, 10_000), count=st.integers(1, 100))
def test_bucket_says_to_the_nanosecond_how_long_to_wait(rate: float, count: int) -> None:
    bucket = RateBucket(rate, 0)
    bucket.spend(bucket.burst, 0)
    count = min(count, bucket.burst)
    wait_ns = round(bucket.wait_s(count, 0) * NS)

    assert bucket.available(max(0, wait_ns - 2)) < count
    assert bucket.available(wait_ns + 1) >= count


def test_windows_above_sees_an_excess() -> None:
    assert windows_above([(0, 2), (NS // 2, 2)], 2, 2) == [(0, 1)]
    assert windows_above([(0, 2), (NS, 2)], 2, 2) == []


@dataclass(slots=True)
class World:
    """Simulated clocks, timers and disk of one client.

    Attributes:
        now_ns: Time.
        disk: What is written down.
        writes: Begun and not ended: what, and whom to tell.
        timers: When, and what.
    """

    now_ns: int = 0
    disk: DayUse | None = None
    writes: list[tuple[DayUse, Callable[[ServiceError | None], None]]] = field(default_factory=list)
    timers: list[tuple[int, Callable[[], None]]] = field(default_factory=list)

    def wall_s(self) -> float:
        return START_S + self.now_ns / NS

    def surroundings(self) -> Surroundings:
        def call_later(delay_s: float, callback: Callable[[], None]) -> None:
            self.timers.append((self.now_ns + int(delay_s * NS), callback))

        def reserve(client: str, use: DayUse, on_done: Callable[[ServiceError | None], None]) -> None:
            self.writes.append((use, on_done))

        return Surroundings(
            clock_ns=lambda: self.now_ns,
            wall_s=self.wall_s,
            call_later=call_later,
            reserve=reserve,
            count=lambda client, count: None,
        )

    def finish_write(self) -> None:
        if self.writes:
            use, on_done = self.writes.pop(0)
            self.disk = use
            on_done(None)

    def pass_time(self, passed_ns: int) -> None:
        """Let time pass, ringing what rings meanwhile."""
        end_ns = self.now_ns + passed_ns
        while due := [timer for timer in self.timers if timer[0] <= end_ns]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now_ns = max(self.now_ns, first[0])
            first[1]()
        self.now_ns = end_ns

    def kill(self) -> None:
        """What a kill -9 leaves: the disk."""
        self.writes.clear()
        self.timers.clear()


def client_with(**limits: float) -> Client:
    return Client.model_validate({"name": "one", "token_sha256": DIGEST, **limits})


def open_allowance(account: ClientAccount) -> ClientAllowance:
    allowance = ClientAllowance(account, DIGEST)
    allowance.open(lambda: None)
    return allowance


ACTIONS = st.one_of(
    st.tuples(st.just("fill"), st.integers(1, 40)),  # one step of a scheduler with so much space
    st.tuples(st.just("pass"), st.integers(0, 2 * NS)),
    st.tuples(st.just("pass"), st.integers(0, DAY_S * NS)),
    st.tuples(st.just("write"), st.just(0)),
    st.tuples(st.just("kill"), st.just(0)),
    st.tuples(st.just("open"), st.just(0)),
    st.tuples(st.just("close"), st.integers(0, 3)),
)


@settings(max_examples=150)
@given(
    rate=st.one_of(st.none(), st.floats(0.5, 200)),
    quota=st.integers(1, 3000),
    num_streams=st.integers(1, 4),
    actions=st.lists(ACTIONS, max_size=80),
)
def test_client_never_gets_more_than_its_limits(
    rate: float | None, quota: int, num_streams: int, actions: list[tuple[str, int]]
) -> None:
    limits = {"samples_per_day": quota} | ({} if rate is None else {"samples_per_second": rate})
    client, world = client_with(**limits), World()
    account = ClientAccount(client, world.disk, world.surroundings())
    allowances = [open_allowance(account) for _ in range(num_streams)]
    taken: list[tuple[int, int]] = []
    by_day: defaultdict[int, int] = defaultdict(int)
    for action, number in actions:
        match action:
            case "fill":
                # As the scheduler does it: all are asked, then as much is taken as there is space.
                ready = {allowance: allowance.num_ready(number) for allowance in allowances}
                space = number
                for allowance, count in ready.items():
                    served = min(count, space)
                    space -= served
                    allowance.take(served)
                    taken.append((world.now_ns, served))
                    by_day[int(world.wall_s() // DAY_S)] += served
                    assert world.disk is not None or not served, "handed out before it was written down"
            case "pass":
                world.pass_time(number)
            case "write":
                world.finish_write()
            case "kill":
                world.kill()
                account = ClientAccount(client, world.disk, world.surroundings())
                allowances = []
                taken.clear()  # a bucket starts full: the rate holds from there
            case "close" if number < len(allowances):
                allowances.pop(number).close()
            case "open":
                try:
                    allowances.append(open_allowance(account))
                except QuotaError as error:
                    assert error.limit == "samples_per_day"
            case _:
                pass
    if rate is not None:
        assert windows_above(taken, rate, max(1, int(rate * 10**6) // 10**6)) == []
    assert all(count <= quota for count in by_day.values())


@settings(max_examples=100)
@given(quota=st.integers(1, 3000), num_kills=st.integers(0, 3), wanted=st.integers(1, 64))
def test_client_gets_all_of_its_quota_but_a_block_for_each_kill(quota: int, num_kills: int, wanted: int) -> None:
    client, world = client_with(samples_per_day=quota), World()
    total = 0
    for run in range(num_kills + 1):
        account = ClientAccount(client, world.disk, world.surroundings())
        try:
            allowance = open_allowance(account)
        except QuotaError:
            break
        runs_out = run == num_kills
        while (runs_out or not total) and allowance.refusal() is None:
            count = allowance.num_ready(wanted)
            allowance.take(count)
            total += count
            if not count:
                assert world.writes, "the stream would wait for ever"
                world.finish_write()
        world.kill()

    assert quota - num_kills * block_size(quota) <= total <= quota


@settings(max_examples=40)
@given(rate=st.floats(0.5, 500), wanted=st.integers(1, 16), num_streams=st.integers(1, 3))
def test_client_that_always_wants_more_gets_its_rate(rate: float, wanted: int, num_streams: int) -> None:
    client, world = client_with(samples_per_second=rate), World()
    account = ClientAccount(client, None, world.surroundings())
    allowances = [open_allowance(account) for _ in range(num_streams)]
    total, duration_s = 0, 60
    end_ns = duration_s * NS
    while world.now_ns < end_ns:
        for allowance in allowances:
            while count := allowance.num_ready(wanted):
                allowance.take(count)
                total += count
        assert world.timers, "nobody would ask again"
        world.pass_time(max(1, min(due_ns for due_ns, _ in world.timers) - world.now_ns))

    assert total >= int(rate * duration_s * 0.95)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_name_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
