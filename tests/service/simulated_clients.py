"""Clients with limits in simulated time: their real accounts, a disk, and a record of what they were handed."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from labelmint_service.access.accounts import ClientAccount, ClientAllowance, Surroundings
from labelmint_service.access.clients import Client
from labelmint_service.access.quotas import DAY_S, DayUse
from labelmint_service.errors import QuotaStoreError, ServiceError
from tests.service.simulated_plans import Limits, Scenario
from tests.service.simulated_time import Clock

DIGEST = "0" * 64
FIRST_DAY = 20_000
SAMPLE = 10**15
"""One sample in whole numbers, for floats cannot tell a rounding from an excess: nanoseconds times millionths a s."""


def rate_micro(rate: float) -> int:
    """Samples a second in millionths."""
    return int(rate * 10**6)


def burst_of(rate: float) -> int:
    """Samples that may come at once after a pause: those of one second, at least one."""
    return max(1, int(rate))


@dataclass(frozen=True, slots=True)
class Taking:
    """Samples that a client was handed.

    Attributes:
        granted: What its rates have come to since some beginning, in parts of SAMPLE.
        burst: Samples that it might have at once then.
        number: Of samples.
    """

    granted: int
    burst: int
    number: int


def windows_above(takings: Sequence[Taking]) -> list[tuple[int, int]]:
    """Windows, as first and last taking, in which more came than rates and burst allow."""
    numbers = [0, *itertools.accumulate(taking.number for taking in takings)]
    return [
        (first, last)
        for first, begin in enumerate(takings)
        for last, end in enumerate(takings[first:], first)
        if (numbers[last + 1] - numbers[first] - begin.burst) * SAMPLE > end.granted - begin.granted
    ]


class SimulatedDisk:
    """What is written down of quotas, by one thread, a write at a time.

    Args:
        clock: Simulated time.
        write_s: How long a write takes.
        bad_writes: Numbers of those that fail.

    Attributes:
        uses: What stands there, by client.
        num_failed: Writes that failed.
    """

    def __init__(self, clock: Clock, write_s: float, bad_writes: Collection[int]) -> None:
        self.uses: dict[str, DayUse] = {}
        self.num_failed = 0
        self._clock, self._write_s, self._bad_writes = clock, write_s, bad_writes
        self._writer = ThreadPoolExecutor(1)  # never given work: the loop does it
        self._numbers = itertools.count()

    def reserve(self, client: str, use: DayUse, on_done: Callable[[ServiceError | None], None]) -> None:
        """Write down; it stands there when the time of it has passed."""
        number = next(self._numbers)

        def on_written(written: asyncio.Future[None]) -> None:
            del written
            if number in self._bad_writes:
                self.num_failed += 1
                on_done(QuotaStoreError("the scenario says so"))
                return
            self.uses[client] = use
            on_done(None)

        writing = asyncio.get_running_loop().run_in_executor(self._writer, self._clock.spend, self._write_s)
        writing.add_done_callback(on_written)


class SimulatedClient:
    """A client with limits, on the running event loop.

    Args:
        name: Its name.
        limits: Its limits.
        scenario: Says when the day ends.
        clock: Simulated time.
        disk: Where its use is written down.

    Attributes:
        limits: Its limits.
        takings: What it was handed, in order, all of it at its rate.
        taken_s: When that was.
        used: The same by days.
        num_streams: Its streams in work.
        most_streams: The most that there were at a time.
        num_ready_elsewhere: Rows that it was told a stream of another model might have.
    """

    def __init__(self, name: str, limits: Limits, scenario: Scenario, clock: Clock, disk: SimulatedDisk) -> None:
        self.limits = limits
        self.takings: list[Taking] = []
        self.taken_s: list[float] = []
        self.used = Counter[int]()
        self.num_streams = self.most_streams = self.num_ready_elsewhere = 0
        self._name, self._clock, self._disk = name, clock, disk
        self._start_s = (FIRST_DAY + 1) * DAY_S - scenario.day_ends_s
        client = Client(
            name=name,
            token_sha256=(DIGEST,),
            samples_per_second=limits.samples_per_second,
            samples_per_day=limits.samples_per_day,
            max_streams=limits.max_streams,
        )
        surroundings = Surroundings(
            clock_ns=clock.read_ns,
            wall_s=self._wall_s,
            call_later=asyncio.get_running_loop().call_later,
            reserve=disk.reserve,
            count=self._note_taken,
        )
        self._account = ClientAccount(client, None, surroundings)

    def make_allowance(self) -> ClientAllowance:
        """The allowance of a new stream."""
        return ClientAllowance(self._account, DIGEST)

    def ask_elsewhere(self) -> None:
        """Ask for rows for a stream of another model, and leave them."""
        allowance = self.make_allowance()
        allowance.open(lambda: None)
        self.num_ready_elsewhere = allowance.num_ready(1000)
        allowance.close()

    def note_streams(self, number: int) -> None:
        """Note that streams of it began, or ended where the number is negative."""
        self.num_streams += number
        self.most_streams = max(self.most_streams, self.num_streams)

    def is_at(self, limit: str) -> bool:
        """Whether it has all that a limit, as QuotaError names it, lets it have."""
        if limit == "max_streams":
            return self.num_streams == self.limits.max_streams
        return self.used[self._today] == self.limits.samples_per_day

    @property
    def _today(self) -> int:
        return int(self._wall_s() // DAY_S)

    def _wall_s(self) -> float:
        return self._start_s + self._clock.read()

    def _note_taken(self, name: str, count: int) -> None:
        """Note what it was handed, which a kill at this moment must not forget."""
        rate, today = self.limits.samples_per_second, self._today
        self.used[today] += count
        self.taken_s.append(self._clock.read())
        if rate is not None:
            self.takings.append(Taking(self._clock.read_ns() * rate_micro(rate), burst_of(rate), count))
        if self.limits.samples_per_day is not None:
            on_disk = self._disk.uses.get(name)
            assert on_disk is not None, "handed out before anything was written down"
            assert on_disk.day == today, "handed out before it was written down on that day"
            assert on_disk.used >= self.used[today], "more was handed out than is written down"
