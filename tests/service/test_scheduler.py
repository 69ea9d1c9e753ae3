"""The scheduler: fair, in order, and what is bad or unwanted never reaches a stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmint.addresses import latents
from labelmint_service.engine import EngineInputs, LatentInputs, StyleInputs
from labelmint_service.errors import DrainingError, EngineRunError, LateError, NonFiniteSampleError, StreamLimitError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.admission import Queue, WaitingRoom
from labelmint_service.scheduling.replicas import Replicas
from labelmint_service.scheduling.rows import Delivery, Entry, Rows
from labelmint_service.scheduling.scheduler import Scheduler
from labelmint_service.scheduling.work import WorkStream
from labelmint_service.tracing.calls import UNTRACED, CallTrace
from tests.service.scripted_engine import ScriptedEngine, scripted_model

WAIT_S = 120.0


class PlainStream:
    """A stream that asks for rows 0, 1, 2, ... of a seed and keeps what it gets."""

    def __init__(self, seed: int, num_rows: int, *, entry: Entry = Entry.LATENTS, credit: int = 1_000_000) -> None:
        self.request_id = f"stream-{seed}"
        self.trace: CallTrace = UNTRACED
        self.client = ""
        self.priority = 0
        self.is_closed = False
        self.is_late = False
        self.deadline_s: float | None = None
        self.entry = entry
        self.credit = credit
        self.got: list[int] = []
        self.error: Exception | None = None
        self.is_drained = False
        self.changed = asyncio.Event()
        self.on_delivery: Callable[[], None] = lambda: None
        self._seed = seed
        self._num_rows = num_rows
        self._next = 0

    def num_ready(self, most: int) -> int:
        if self.error is not None or self.is_closed:
            return 0
        return min(most, self._num_rows - self._next, self.credit)

    def take(self, count: int) -> Rows:
        indices = tuple(range(self._next, self._next + count))
        self._next += count
        self.credit -= count
        return Rows(indices=indices, load=lambda: self._load(indices))

    def _load(self, indices: tuple[int, ...]) -> EngineInputs:
        z = latents(self._seed, np.array(indices, dtype=np.uint64), 8)
        if self.entry is Entry.STYLES:
            return StyleInputs(ws=np.repeat(z[:, None], 4, axis=1))
        return LatentInputs(z=z, truncation_psi=np.ones(len(indices), dtype=np.float32))

    def deliver(self, delivery: Delivery) -> None:
        assert delivery.outputs.finite.all()
        assert len(delivery.outputs.image) == len(delivery.indices)
        self.got += delivery.indices
        self.on_delivery()
        self.changed.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.changed.set()

    def drain(self) -> None:
        self.is_drained = True
        self.changed.set()

    async def wait_for(self, num_rows: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.got) < num_rows:
                self.changed.clear()
                await self.changed.wait()

    async def wait_for_error(self) -> Exception:
        async with asyncio.timeout(WAIT_S):
            while self.error is None:
                self.changed.clear()
                await self.changed.wait()
        return self.error


@asynccontextmanager
async def scheduling(
    model: ServedModel, *, max_streams: int = 100, queue: Queue[WorkStream] | None = None
) -> AsyncIterator[Scheduler]:
    metrics = ServiceMetrics()
    queue = queue or Queue(model.name, WaitingRoom(max_streams=1000), 1000.0, metrics)
    with ThreadPoolExecutor(1) as pool:
        replicas = Replicas(model, metrics=metrics, timeout_s=WAIT_S, on_state=lambda _: None)
        scheduler = Scheduler(
            model,
            pool=pool,
            replicas=replicas,
            metrics=metrics,
            max_streams=max_streams,
            queue=queue,
            tracing=UNTRACED,
        )
        scheduler.start()
        try:
            yield scheduler
        finally:
            if isinstance(model.engine, ScriptedEngine):
                model.engine.let_all()
            await scheduler.close()


@pytest.fixture
def scripted(bundles: dict[str, Path]) -> tuple[ServedModel, ScriptedEngine]:
    return scripted_model(bundles["tiny"])


async def wait_until_begun(engine: ScriptedEngine) -> None:
    await asyncio.to_thread(engine.wait_until_begun)


async def test_rows_arrive_in_order_and_none_is_lost(scripted: tuple[ServedModel, ScriptedEngine]) -> None:
    model, engine = scripted
    streams = [PlainStream(seed, num_rows) for seed, num_rows in ((1, 17), (2, 1), (3, 30))]
    async with scheduling(model) as scheduler:
        for stream in streams:
            scheduler.add(stream)
        for stream, num_rows in zip(streams, (17, 1, 30), strict=True):
            await stream.wait_for(num_rows)
    assert [stream.got for stream in streams] == [list(range(count)) for count in (17, 1, 30)]
    assert engine.num_rows == 48
    assert len(engine.runs) <= 14, "batches were not shared: 48 rows fill 12, and two may be ragged"


@settings(max_examples=25)
@given(num_rows=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_busy_streams_are_served_evenly_to_within_one_row(bundles: dict[str, Path], num_rows: list[int]) -> None:
    model, _ = scripted_model(bundles["tiny"])

    async def main() -> None:
        streams = [PlainStream(seed, count) for seed, count in enumerate(num_rows)]
        history: list[list[int]] = []
        for stream in streams:
            stream.on_delivery = lambda: history.append([len(each.got) for each in streams])
        async with scheduling(model) as scheduler:
            for stream in streams:
                scheduler.add(stream)
            for stream, count in zip(streams, num_rows, strict=True):
                await stream.wait_for(count)
        # Deliveries of one batch come one stream after the other, so only whole batches compare: B rows, or the last.
        for counts in history:
            if sum(counts) % model.engine.batch_size == 0:
                busy = [got for got, count in zip(counts, num_rows, strict=True) if got < count]
                assert max(busy, default=0) - min(busy, default=0) <= 1

    asyncio.run(main())


async def test_a_batch_is_filled_from_several_streams(scripted: tuple[ServedModel, ScriptedEngine]) -> None:
    model, engine = scripted
    engine.hold()
    async with scheduling(model) as scheduler:
        streams = [PlainStream(seed, 2) for seed in range(4)]
        for stream in streams:
            scheduler.add(stream)
        engine.let_all()
        for stream in streams:
            await stream.wait_for(2)
    assert [len(z) for z in engine.runs] == [4, 4]


async def test_rows_of_another_entry_wait_for_the_next_batch_and_do_not_starve(
    scripted: tuple[ServedModel, ScriptedEngine],
) -> None:
    model, _ = scripted
    async with scheduling(model) as scheduler:
        latent, style = PlainStream(1, 10_000), PlainStream(2, 8, entry=Entry.STYLES)
        scheduler.add(latent)
        scheduler.add(style)
        await style.wait_for(8)
        assert len(latent.got) < 100
        latent.is_closed = True
        scheduler.remove(latent)


async def test_rows_of_a_caller_that_has_gone_are_not_computed(scripted: tuple[ServedModel, ScriptedEngine]) -> None:
    model, engine = scripted
    engine.hold()
    async with scheduling(model) as scheduler:
        gone, other = PlainStream(1, 8), PlainStream(2, 4)
        scheduler.add(gone)
        await wait_until_begun(engine)  # four rows of `gone` run, four more are in the next batch
        gone.is_closed = True
        scheduler.remove(gone)
        scheduler.add(other)
        engine.let_all()
        await other.wait_for(4)
    assert [len(z) for z in engine.runs] == [4, 4]
    np.testing.assert_array_equal(engine.runs[1], latents(2, np.arange(4, dtype=np.uint64), 8))


async def test_late_rows_are_not_computed_and_their_stream_learns_it(
    scripted: tuple[ServedModel, ScriptedEngine],
) -> None:
    model, engine = scripted
    engine.hold()
    async with scheduling(model) as scheduler:
        first, late = PlainStream(1, 4), PlainStream(2, 4)
        scheduler.add(first)
        await wait_until_begun(engine)
        scheduler.add(late)
        late.is_late = True
        engine.let_all()
        assert isinstance(await late.wait_for_error(), LateError)
        await first.wait_for(4)
    assert len(engine.runs) == 1
    assert late.got == []


async def test_failed_run_fails_the_stream_at_fault_only(scripted: tuple[ServedModel, ScriptedEngine]) -> None:
    model, engine = scripted
    bad = latents(1, np.array([0], dtype=np.uint64), 8)[0]
    engine.fails = lambda z: bool((z == bad).all(axis=1).any())
    engine.hold()
    async with scheduling(model) as scheduler:
        faulty, sound = PlainStream(1, 2), PlainStream(2, 2)
        scheduler.add(faulty)
        scheduler.add(sound)
        engine.let_all()
        await sound.wait_for(2)
        assert isinstance(await faulty.wait_for_error(), EngineRunError)
    assert faulty.got == []
    assert sound.got == [0, 1]


async def test_latents_that_cannot_be_made_end_their_stream_after_what_came_before_and_spare_others(
    scripted: tuple[ServedModel, ScriptedEngine], caplog: pytest.LogCaptureFixture
) -> None:
    class Unmade(PlainStream):
        def _load(self, indices: tuple[int, ...]) -> EngineInputs:
            if 2 in indices:
                raise MemoryError
            return super()._load(indices)

    async with scheduling(scripted[0]) as scheduler:
        faulty, sound = Unmade(1, 4), PlainStream(2, 8)
        scheduler.add(faulty)
        scheduler.add(sound)
        await sound.wait_for(8)
        error = await faulty.wait_for_error()

    assert isinstance(error, MemoryError)
    assert faulty.got == [0, 1]
    assert sound.got == list(range(8))
    [record] = [record for record in caplog.records if record.message == "scheduler.error"]
    assert vars(record)["labelmint_fields"]["request_id"] == faulty.request_id


async def test_non_finite_row_ends_its_stream_before_it_and_spares_others(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["poisoned"])
    firsts = {seed: latents(seed, np.arange(8, dtype=np.uint64), 8)[:, 0] > 1.0 for seed in range(200)}
    faulty_seed = next(seed for seed, bad in firsts.items() if not bad[0] and bad[1])
    sound_seed = next(seed for seed, bad in firsts.items() if not bad.any())
    engine.hold()
    async with scheduling(model) as scheduler:
        faulty, sound = PlainStream(faulty_seed, 8), PlainStream(sound_seed, 8)
        scheduler.add(faulty)
        scheduler.add(sound)
        engine.let_all()
        await sound.wait_for(8)
        error = await faulty.wait_for_error()
    assert isinstance(error, NonFiniteSampleError)
    assert error.next_index == 2
    assert faulty.got[:1] == [0]
    assert 1 not in faulty.got
    assert sound.got == list(range(8))


async def test_more_streams_than_allowed_are_refused(scripted: tuple[ServedModel, ScriptedEngine]) -> None:
    async with scheduling(scripted[0], max_streams=2) as scheduler:
        streams = [PlainStream(seed, 1) for seed in range(3)]
        scheduler.add(streams[0])
        scheduler.add(streams[1])
        with pytest.raises(StreamLimitError, match="max_streams"):
            scheduler.add(streams[2])
        scheduler.remove(streams[0])
        scheduler.add(streams[2])
        await streams[2].wait_for(1)


async def test_drain_finishes_what_was_taken_and_refuses_the_rest(
    scripted: tuple[ServedModel, ScriptedEngine],
) -> None:
    model, engine = scripted
    engine.hold()
    async with scheduling(model) as scheduler:
        stream = PlainStream(1, 1000)
        scheduler.add(stream)
        await wait_until_begun(engine)
        draining = asyncio.create_task(scheduler.drain())
        await asyncio.sleep(0)
        with pytest.raises(DrainingError):
            scheduler.add(PlainStream(2, 1))
        engine.let_all()
        async with asyncio.timeout(WAIT_S):
            await draining
    assert stream.is_drained
    assert stream.got == list(range(engine.num_rows))
    assert engine.num_rows <= 8


async def test_a_stream_that_raises_does_not_stop_the_scheduler(scripted: tuple[ServedModel, ScriptedEngine]) -> None:
    class Broken(PlainStream):
        def take(self, count: int) -> Rows:
            raise RuntimeError("a defect")

    async with scheduling(scripted[0]) as scheduler:
        broken = Broken(1, 4)
        scheduler.add(broken)
        assert isinstance(await broken.wait_for_error(), RuntimeError)
        scheduler.remove(broken)
        sound = PlainStream(2, 4)
        scheduler.add(sound)
        await sound.wait_for(4)
