"""Streams and engines in simulated time, and a record of what the scheduler did with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from labelmint.bundle import Bundle
from labelmint_service.access.allowances import Allowance, Unlimited
from labelmint_service.engine import EngineBatch, EngineInputs, JsonValue, LatentInputs, StyleInputs
from labelmint_service.errors import QuotaError, ServiceError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import join_replicas, serve_bundle
from labelmint_service.scheduling.admission import Queue, WaitingRoom
from labelmint_service.scheduling.replicas import Replicas
from labelmint_service.scheduling.rows import Delivery, Entry, Rows
from labelmint_service.scheduling.scheduler import Scheduler
from labelmint_service.scheduling.work import WorkStream
from labelmint_service.tracing.calls import UNTRACED, CallTrace
from tests.service.simulated_clients import SimulatedClient, SimulatedDisk
from tests.service.simulated_plans import FAULTS, Scenario, StreamPlan
from tests.service.simulated_time import Clock, simulate

Row: TypeAlias = tuple[int, int]
"""Number of a stream, index of its row."""

Z_DIM = 8
NUM_WS = 4
ENGINE_TIMEOUT_S = 100.0


@dataclass(slots=True)
class Run:
    """A run of an engine.

    Attributes:
        rows: What was computed.
        batch_size: Of the engine then.
        gone: Streams among them whose caller had gone, or was late, when it began.
        failed: Whether it failed.
        began_s: When it began.
        ended_s: When it ended.
    """

    rows: list[Row]
    batch_size: int
    gone: set[int]
    failed: bool
    began_s: float
    ended_s: float


@dataclass(slots=True)
class Fill:
    """A filling of a batch.

    Attributes:
        space: Rows that there was room for.
        ready: Rows that each stream had.
        taken: Rows that were taken from each.
    """

    space: int
    ready: dict[SimulatedStream, int] = field(default_factory=dict)
    taken: dict[SimulatedStream, int] = field(default_factory=dict)


class SimulatedStream:
    """A stream whose rows are its number and 0, 1, 2, ...

    Attributes:
        got: Rows that were delivered before it failed or its caller left.
        error: What the scheduler ended it with.
        refusal: Why it was not let in.
        num_waiting: Streams that waited then.
        was_at_limit: Whether its client had all that the limit allows which ended it, or kept it out.
        has_left: Whether its caller left before it was done.
        num_taken: Rows that it handed out.
    """

    def __init__(self, number: int, plan: StreamPlan, world: World) -> None:
        self.number, self.plan = number, plan
        self.request_id = f"stream-{number}"
        self.trace: CallTrace = UNTRACED
        self.client, self.priority, self.entry = plan.client, plan.priority, plan.entry
        self.is_closed = False
        self.deadline_s: float | None = None
        self.got: list[Row] = []
        self.error: Exception | None = None
        self.refusal: ServiceError | None = None
        self.num_waiting = 0
        self.was_at_limit = False
        self.has_left = False
        self.num_taken = 0
        self._world = world
        self._limited = world.clients.get(plan.client)
        self._allowance: Allowance = Unlimited() if self._limited is None else self._limited.make_allowance()
        self._is_let_in = False
        self._answer: int | None = None  # when it was last asked for rows
        self._num_arrived = 0
        self._num_held = 0  # taken, and not read yet
        self._is_draining = False
        self._changed = asyncio.Event()

    @property
    def is_late(self) -> bool:
        return self.deadline_s is not None and self._world.clock.now_s > self.deadline_s

    @property
    def is_waiting_for_first_turn(self) -> bool:
        return self._is_let_in and not self.is_closed and self.num_taken == 0 and self._answer != 0

    def num_ready(self, most: int) -> int:
        is_over = self.is_closed or self._is_draining or self.error is not None
        credit = self.plan.window - self._num_held
        wanted = 0 if is_over else min(most, self.plan.num_rows - self.num_taken, credit)
        count = self._allowance.num_ready(wanted)
        if most:  # or it was told that it gets no more
            self._answer = count
            self._world.note_ready(self, most, count)
        return count

    def take(self, count: int) -> Rows:
        self._world.fills[-1].taken[self] = count
        self._allowance.take(count)
        indices = tuple(range(self.num_taken, self.num_taken + count))
        self.num_taken += count
        self._num_held += count
        return Rows(indices=indices, load=lambda: self._load(indices))

    def _load(self, indices: tuple[int, ...]) -> EngineInputs:
        self._world.clock.spend(self.plan.load_s)
        if self.plan.unmade_row in indices:
            raise MemoryError("the scenario says so")
        z = np.zeros((len(indices), Z_DIM), np.float32)
        z[:, 0], z[:, 1] = self.number, indices
        if self.entry is Entry.STYLES:
            return StyleInputs(ws=np.repeat(z[:, None], NUM_WS, axis=1))
        return LatentInputs(z=z, truncation_psi=np.ones(len(indices), np.float32))

    def deliver(self, delivery: Delivery) -> None:
        assert delivery.outputs.finite.all()
        if self.error is None and not self.is_closed:
            assert delivery.outputs.keypoints is not None
            self.got += [(int(x), int(y)) for x, y in delivery.outputs.keypoints[:, 0, :2]]
        num_rows = len(delivery.indices)
        self._num_arrived += num_rows
        asyncio.get_running_loop().call_later(self.plan.read_s * num_rows, self._read, num_rows)
        self._changed.set()

    def _read(self, num_rows: int) -> None:
        self._num_held -= num_rows
        self._world.scheduler.wake()

    def fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            self._changed.set()

    def drain(self) -> None:
        self._is_draining = True
        self._changed.set()

    @property
    def is_done(self) -> bool:
        num_wanted = self.num_taken if self._is_draining else self.plan.num_rows
        return self.error is not None or len(self.got) == num_wanted

    async def live(self) -> None:
        """Come, wait until it is over, go."""
        await asyncio.sleep(self.plan.arrives_s)
        if self.plan.deadline_s is not None:
            self.deadline_s = self._world.clock.now_s + self.plan.deadline_s
        try:
            self._allowance.open(self._look_again)
            self._world.scheduler.add(self)
        except ServiceError as error:
            self._allowance.close()
            self.refusal, self.num_waiting = error, self._world.room.num_streams
            self.was_at_limit = self._is_at_limit(error)
            return
        self._begin()
        try:
            async with asyncio.timeout(self.plan.stays_s):
                while not self.is_done:
                    self._changed.clear()
                    self._check_allowance()
                    await self._changed.wait()
        except TimeoutError:
            self.has_left = True
        self._end()

    def _begin(self) -> None:
        self._is_let_in = True
        if self._limited is not None:
            self._limited.note_streams(1)
        self._world.note_let_in()

    def _end(self) -> None:
        self.is_closed = True
        if self._limited is not None:
            self._limited.note_streams(-1)
        self._world.scheduler.remove(self)
        self._allowance.close()

    def _look_again(self) -> None:
        self._world.scheduler.wake()
        self._changed.set()

    def _check_allowance(self) -> None:
        """End if it wants rows that it may not have, as streams.sample_stream does."""
        if self._is_draining or self.num_taken > self._num_arrived:
            return
        error = self._allowance.refusal()
        if error is not None:
            self.was_at_limit = self._is_at_limit(error)
            self.fail(error)

    def _is_at_limit(self, error: ServiceError) -> bool:
        return isinstance(error, QuotaError) and self._limited is not None and self._limited.is_at(error.limit)


class SimulatedEngine:
    """Says of each row whose it is; takes its time, and fails as the scenario has it."""

    name = "simulated"

    def __init__(self, world: World, run_s: float) -> None:
        self.batch_size = world.scenario.batch_size
        self.stages_ns: dict[str, int] = {}
        self._world = world
        self._run_s = run_s

    def describe(self) -> Mapping[str, JsonValue]:
        return {}

    def run(self, inputs: LatentInputs) -> EngineBatch:
        return self._answer(inputs.z)

    def run_styles(self, ws: npt.NDArray[np.float32]) -> EngineBatch:
        return self._answer(ws[:, 0])

    def _answer(self, rows: npt.NDArray[np.float32]) -> EngineBatch:
        began_s = self._world.clock.read()
        self._world.clock.spend(self._run_s)
        num_rows, finite = len(rows), np.ones(len(rows), np.bool_)
        if self._world.is_serving and not np.any(rows % 1):  # the rows of the probe are no whole numbers
            finite = self._world.note_run([(int(row[0]), int(row[1])) for row in rows], self.batch_size, began_s)
        keypoints = np.zeros((num_rows, 1, 4), np.float32)
        keypoints[:, 0, :2] = rows[:, :2]
        return EngineBatch(
            image=np.zeros((num_rows, 1, 1, 3), np.uint8),
            label=np.zeros((num_rows, 1, 1), np.uint8),
            uncertainty_map=np.zeros((num_rows, 1, 1), np.float16),
            keypoints=keypoints,
            finite=finite,
        )

    def average_style(self) -> npt.NDArray[np.float32]:
        return np.zeros(Z_DIM, np.float32)

    def resize(self, batch_size: int) -> bool:
        self.batch_size = batch_size
        return True

    def close(self) -> None:
        pass


class World:
    """A scenario at work.

    Attributes:
        streams: All of them.
        runs: What the engines computed, in the order in which it began.
        fills: How batches were filled, in order.
        most_streams: Streams in work at a time, the most that there were.
        most_waiting: Streams that waited when one of them was let in while all engines computed, at most.
        room: Who waits.
        clients: Those with limits, by name.
        disk: What is written down of quotas.
    """

    def __init__(self, scenario: Scenario, bundle: Bundle) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.streams: list[SimulatedStream] = []
        self.runs: list[Run] = []
        self.fills: list[Fill] = []
        self.most_streams = 0
        self.most_waiting = 0
        self.clients: dict[str, SimulatedClient] = {}
        self.disk = SimulatedDisk(self.clock, scenario.write_s, scenario.bad_writes)
        self.room = WaitingRoom(max_streams=scenario.max_waiting)
        self.is_serving = False
        self.scheduler: Scheduler
        models = [serve_bundle(bundle, SimulatedEngine(self, run_s)) for run_s in scenario.run_s]
        self._model = join_replicas(models)

    def play(self) -> World:
        """Let it all happen.

        Raises:
            StandstillError: Somebody would wait for ever.
        """
        simulate(self.clock, self._play())
        return self

    async def _play(self) -> None:
        metrics, scenario = ServiceMetrics(), self.scenario
        pool = ThreadPoolExecutor(1)  # never given work: the loop does it
        queue = Queue[WorkStream]("tiny", self.room, 1e6, metrics)
        replicas = Replicas(self._model, metrics=metrics, timeout_s=ENGINE_TIMEOUT_S, on_state=lambda _: None)
        self.scheduler = Scheduler(
            self._model,
            pool=pool,
            replicas=replicas,
            metrics=metrics,
            max_streams=scenario.max_streams,
            queue=queue,
            tracing=UNTRACED,
        )
        self.scheduler.start()
        self.is_serving = True
        self.clients = {
            name: SimulatedClient(name, limits, scenario, self.clock, self.disk)
            for name, limits in scenario.limits.items()
        }
        self.streams = [SimulatedStream(number, plan, self) for number, plan in enumerate(scenario.streams)]
        if scenario.elsewhere_s is not None:
            for client in self.clients.values():
                asyncio.get_running_loop().call_later(scenario.elsewhere_s, client.ask_elsewhere)
        lives = [asyncio.create_task(stream.live()) for stream in self.streams]
        if scenario.drains_s is not None:
            await asyncio.sleep(scenario.drains_s)
            await self.scheduler.drain()
        await asyncio.gather(*lives)
        await self.scheduler.close()

    def note_let_in(self) -> None:
        """Note that a stream was let in."""
        self.most_streams = max(self.most_streams, self.scheduler.num_streams)
        now_s = self.clock.now_s
        if sum(run.began_s <= now_s < run.ended_s for run in self.runs) == len(self.scenario.run_s):
            num_waiting = sum(stream.is_waiting_for_first_turn for stream in self.streams)
            self.most_waiting = max(self.most_waiting, num_waiting, self.room.num_streams)

    def note_ready(self, stream: SimulatedStream, space: int, count: int) -> None:
        """Note that a stream was asked for rows, for a new batch or one that is being filled."""
        assert space > 0, "a stream was asked for fewer rows than none"
        if not self.fills or stream in self.fills[-1].ready or self.fills[-1].taken:
            self.fills.append(Fill(space))
        self.fills[-1].ready[stream] = count

    def note_run(self, rows: list[Row], batch_size: int, began_s: float) -> npt.NDArray[np.bool_]:
        """Note a run, and say which of its rows come out finite."""
        fault = self.scenario.faults.get(len(self.runs))
        of_streams = {number for number, _ in rows}
        gone = {number for number in of_streams if self.streams[number].is_closed or self.streams[number].is_late}
        self.runs.append(Run(rows, batch_size, gone, fault is not None, began_s, self.clock.read()))
        if fault is not None:
            raise FAULTS[fault]("the scenario says so")
        return np.array([self.streams[number].plan.bad_row != index for number, index in rows])
