"""Whatever callers, clocks, reloads and kills do: no rate is exceeded over any window, no quota on any day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from labelmint.hosts import is_loopback
from labelmint_service.access.accounts import ClientAccount, ClientAllowance, Surroundings
from labelmint_service.access.clients import Client
from labelmint_service.access.quotas import DAY_S, DayUse, block_size
from labelmint_service.access.rates import RateBucket
from labelmint_service.errors import QuotaError, QuotaStoreError, ServiceError, UnauthenticatedError
from tests.service.simulated_clients import DIGEST, SAMPLE, Taking, burst_of, rate_micro, windows_above

NS = 10**9
START_S = 20_000 * DAY_S


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
        taken.append(Taking(now_ns * rate_micro(rate), bucket.burst, number))

    assert bucket.burst == burst_of(rate)
    assert windows_above(taken) == []


@given(
    rates=st.lists(st.floats(0.001, 10_000), min_size=1, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 3 * NS), st.integers(0, 5000), st.integers(0, 9)), max_size=60),
)
def test_bucket_whose_rate_changes_gives_and_keeps_what_each_rate_allows(
    rates: list[float], steps: list[tuple[int, int, int]]
) -> None:
    rate = rates[0]
    bucket, now_ns, allowed = RateBucket(rate, 0), 0, 0
    taken = []
    for passed_ns, wanted, index in steps:
        now_ns += passed_ns
        allowed += passed_ns * rate_micro(rate)
        kept = bucket.available(now_ns)
        if index < len(rates):
            rate = rates[index]
            bucket.set_rate(rate, now_ns)
            assert bucket.burst == burst_of(rate)
            assert bucket.available(now_ns) == min(kept, bucket.burst)
        number = min(wanted, bucket.available(now_ns))
        bucket.spend(number, now_ns)
        taken.append(Taking(allowed, bucket.burst, number))

    assert windows_above(taken) == []


@given(rate=st.floats(0.01, 10_000), count=st.integers(1, 100))
def test_bucket_says_to_the_nanosecond_how_long_to_wait(rate: float, count: int) -> None:
    bucket = RateBucket(rate, 0)
    bucket.spend(bucket.burst, 0)
    count = min(count, bucket.burst)
    wait_ns = round(bucket.wait_s(count, 0) * NS)

    assert bucket.available(max(0, wait_ns - 2)) < count
    assert bucket.available(wait_ns + 1) >= count


def test_windows_above_sees_an_excess() -> None:
    assert windows_above([Taking(0, 2, 2), Taking(SAMPLE, 2, 2)]) == [(0, 1)]
    assert windows_above([Taking(0, 2, 2), Taking(2 * SAMPLE, 2, 2)]) == []


@dataclass(slots=True)
class World:
    """Simulated clocks, timers and disk of one client.

    Attributes:
        now_ns: Time of the clock that never goes back.
        ahead_s: What the other clock, which somebody may set, is ahead of it.
        latest_day: The latest that it has shown.
        disk: What is written down.
        writes: Begun and not ended: what, and whom to tell.
        timers: When, and what.
    """

    now_ns: int = 0
    ahead_s: int = START_S
    latest_day: int = 0
    disk: DayUse | None = None
    writes: list[tuple[DayUse, Callable[[ServiceError | None], None]]] = field(default_factory=list)
    timers: list[tuple[int, Callable[[], None]]] = field(default_factory=list)

    def wall_s(self) -> float:
        now_s = self.ahead_s + self.now_ns / NS
        self.latest_day = max(self.latest_day, int(now_s // DAY_S))
        return now_s

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

    def finish_write(self, error: ServiceError | None = None) -> None:
        """End the write that has begun first, if there is one; with an error it leaves the disk as it was."""
        if not self.writes:
            return
        use, on_done = self.writes.pop(0)
        if error is None:
            assert self.disk is None or use.day >= self.disk.day, "a day came back"
            self.disk = use
        on_done(error)

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


def client_with(**limits: object) -> Client:
    return Client.model_validate({"name": "one", "token_sha256": DIGEST, **limits})


def open_allowance(account: ClientAccount) -> ClientAllowance:
    allowance = ClientAllowance(account, DIGEST)
    allowance.open(lambda: None)
    return allowance


clients = st.builds(
    client_with,
    samples_per_second=st.none() | st.floats(0.5, 200),
    samples_per_day=st.sampled_from([None, None, 1, 40, 3000]),
    max_streams=st.none() | st.integers(1, 3),
    expires=st.none()
    | st.none()
    | st.integers(1, 3).map(lambda days: datetime.fromtimestamp(START_S + days * DAY_S, UTC)),
)
models = st.integers(0, 1)


class Serving(RuleBasedStateMachine):
    """A server with one client, whose streams are of two models, and what may happen to it."""

    @initialize(client=clients)
    def begin(self, client: Client) -> None:
        self.world = World()
        self.client: Client | None = client  # as the file of clients has it
        self.takings: list[Taking] = []
        self.granted = 0  # what the rates have come to
        self.handed_out = Counter[int]()  # by the day that stands on disk
        self._restart(client)

    def _restart(self, client: Client) -> None:
        self.account = ClientAccount(client, self.world.disk, self.world.surroundings())
        self.account.update(self.client)
        self.allowances: list[tuple[int, ClientAllowance]] = []
        self._begin_rate()  # a bucket starts full
        for model in (0, 1):
            self.open(model)

    @rule(model=models, space=st.integers(1, 40))
    def fill(self, model: int, space: int) -> None:
        """Fill a batch of a model as its scheduler does: all are asked, then as much is taken as there is space."""
        ready = {allowance: allowance.num_ready(space) for of, allowance in self.allowances if of == model}
        for allowance, count in ready.items():
            served = min(count, space)
            if served:
                space -= served
                allowance.take(served)
                self._check_handed_out(served)

    def _check_handed_out(self, count: int) -> None:
        client, world = self.client, self.world
        assert client is not None, "handed out with a token that was withdrawn"
        assert not self._is_expired(client)
        if client.samples_per_second is not None:
            self.takings.append(Taking(self.granted, burst_of(client.samples_per_second), count))
        if client.samples_per_day is None:
            return
        # A kill at this moment leaves what is on disk. Its day is later than the clock's where that was set back, and
        # never one that the clock has not shown.
        assert world.disk is not None, "handed out before anything was written down"
        assert int(world.wall_s() // DAY_S) <= world.disk.day <= world.latest_day
        self.handed_out[world.disk.day] += count
        assert self.handed_out[world.disk.day] <= min(world.disk.used, client.samples_per_day)

    @rule(passed_ns=st.integers(0, 2 * NS) | st.integers(0, DAY_S * NS))
    def pass_time(self, passed_ns: int) -> None:
        rate = self.client.samples_per_second if self.client is not None else self.account.client.samples_per_second
        if rate is not None:
            self.granted += passed_ns * rate_micro(rate)
        self.world.pass_time(passed_ns)

    @rule(ahead_days=st.integers(-2, 2))
    def set_clock(self, ahead_days: int) -> None:
        self.world.ahead_s = START_S + ahead_days * DAY_S

    @rule(model=models, error=st.sampled_from([None, QuotaStoreError("the disk is full")]))
    def fill_over_midnight_and_a_write(self, model: int, error: ServiceError | None) -> None:
        self.fill(model, 40)
        self.pass_time(DAY_S * NS)
        self.fill(model, 40)
        self.world.finish_write(error)
        self.fill(model, 40)

    @rule(model=models, rate=st.floats(0.5, 30))
    def fill_before_and_after_another_rate(self, model: int, rate: float) -> None:
        self.fill(model, 40)
        self.pass_time(NS // 2)
        if self.client is not None:
            self.reload(self.client.model_copy(update={"samples_per_second": rate}))
            self.fill(model, 40)

    @rule()
    def finish_write(self) -> None:
        self.world.finish_write()

    @rule(model=models)
    def fill_until_all_is_written(self, model: int) -> None:
        self.fill(model, 40)
        while self.world.writes:
            self.world.finish_write()
            self.fill(model, 40)

    @rule()
    def fail_write(self) -> None:
        self.world.finish_write(QuotaStoreError("the disk is full"))

    @rule(model=models)
    def open(self, model: int) -> None:
        try:
            allowance = open_allowance(self.account)
        except QuotaError as error:
            most = self.account.client.max_streams
            assert error.limit == "samples_per_day" or (most is not None and len(self.allowances) >= most)
        except UnauthenticatedError:
            assert self.client is None or self._is_expired(self.client)
        else:
            assert self.client is not None, "a stream was opened with a token that was withdrawn"
            self.allowances.append((model, allowance))
            assert len(self.allowances) <= (self.client.max_streams or len(self.allowances))

    @rule(number=st.integers(0, 3))
    def close(self, number: int) -> None:
        if number < len(self.allowances):
            self.allowances.pop(number)[1].close()

    @rule(client=clients)
    def reload(self, client: Client) -> None:
        if client.samples_per_second is None:
            self._begin_rate()
        self.client = client
        self.account.update(client)

    @rule()
    def withdraw(self) -> None:
        self.client = None
        self.account.update(None)

    @rule()
    def kill(self) -> None:
        self.world.kill()
        self._restart(self.account.client)

    @rule()
    def stop(self) -> None:
        """Stop the server in order: what was reserved and not used is given back."""
        while self.world.writes:
            self.world.finish_write()
        self.world.disk = self.account.use() or self.world.disk
        self.kill()

    def teardown(self) -> None:
        if hasattr(self, "takings"):
            self._begin_rate()

    def _begin_rate(self) -> None:
        assert windows_above(self.takings) == []
        self.takings.clear()

    def _is_expired(self, client: Client) -> bool:
        return client.is_expired(datetime.fromtimestamp(self.world.wall_s(), UTC))


def test_client_never_gets_more_than_its_limits() -> None:
    run_state_machine_as_test(Serving, settings=settings(max_examples=100, stateful_step_count=50))


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
    total, duration_s = 0, 30
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
