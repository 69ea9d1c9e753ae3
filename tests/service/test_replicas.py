"""Several engines of one model: same bits, in order, all of them at work, and one that fails is left out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from labelmint.bundle import Bundle, open_bundle
from labelmint_service.engine import EngineBatch, EngineChoice, LatentInputs, load_engine
from labelmint_service.errors import EngineRunError, EngineStartError, QueueFullError
from labelmint_service.loading import load_models
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.numerics import Numerics
from labelmint_service.models.served import ServedModel, join_replicas, load_model, serve_bundle
from labelmint_service.scheduling.admission import Queue, WaitingRoom
from labelmint_service.scheduling.engine_runner import FAILURES_UNTIL_UNHEALTHY, EngineState
from labelmint_service.scheduling.replicas import Replicas
from labelmint_service.scheduling.scheduler import Scheduler
from labelmint_service.settings import load_settings
from labelmint_service.tracing.calls import UNTRACED
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, collect, make_request
from tests.service.repositories import LoadingEngine, Truth
from tests.service.scripted_engine import WAIT_S, ScriptedEngine, scripted_model
from tests.service.test_scheduler import PlainStream, wait_until_begun
from tests.serving import serving

Twins = tuple[ServedModel, list[ScriptedEngine]]


@pytest.fixture
def twins(bundles: dict[str, Path]) -> Twins:
    pairs = [scripted_model(bundles["tiny"]) for _ in range(2)]
    return join_replicas([model for model, _ in pairs]), [engine for _, engine in pairs]


@asynccontextmanager
async def scheduling(
    model: ServedModel, engines: list[ScriptedEngine], *, max_waiting: int = 1000
) -> AsyncIterator[Scheduler]:
    metrics = ServiceMetrics()
    with ThreadPoolExecutor(1) as pool:
        replicas = Replicas(model, metrics=metrics, timeout_s=WAIT_S, on_state=lambda _: None)
        scheduler = Scheduler(
            model,
            pool=pool,
            replicas=replicas,
            metrics=metrics,
            max_streams=100,
            queue=Queue(model.name, WaitingRoom(max_streams=max_waiting), 1000.0, metrics),
            tracing=UNTRACED,
        )
        scheduler.start()
        try:
            yield scheduler
        finally:
            for engine in engines:
                engine.let_all()
            await scheduler.close()


def test_stream_of_two_replicas_is_the_graph_run_directly_and_both_work(bundles: dict[str, Path], twins: Twins) -> None:
    model, engines = twins
    with serving([model]) as running:
        request = make_request(max_accepted=200, output={"fields": EVERY_FIELD})
        streams = [running.stub().Generate(request, timeout=TIMEOUT_S) for _ in range(2)]
        got = [collect(stream) for stream in streams]

    for one in got:
        assert one.indices == list(range(200))
        Truth(bundles["tiny"]).check(one)
    assert all(engine.num_rows for engine in engines)


def test_one_stream_keeps_all_replicas_busy(twins: Twins) -> None:
    model, engines = twins
    for engine in engines:
        engine.hold()
    with serving([model]) as running:
        stream = running.stub().Generate(make_request(max_accepted=40), timeout=TIMEOUT_S)
        for engine in engines:
            engine.wait_until_begun()
        for engine in engines:
            engine.let_all()

        assert collect(stream).indices == list(range(40))


async def test_stream_waits_only_while_no_replica_is_free(twins: Twins) -> None:
    model, engines = twins
    for engine in engines:
        engine.hold()
    streams = [PlainStream(seed, 4) for seed in range(4)]
    async with scheduling(model, engines, max_waiting=1) as scheduler:
        for stream, engine in zip(streams, engines, strict=False):  # nobody waits: each has an engine
            scheduler.add(stream)
            await wait_until_begun(engine)
        scheduler.add(streams[2])  # this one does
        with pytest.raises(QueueFullError, match="1 streams of all models wait"):
            scheduler.add(streams[3])
        for engine in engines:
            engine.let_all()
        for stream in streams[:3]:
            await stream.wait_for(4)


async def test_rows_come_in_order_although_a_later_batch_ends_first(twins: Twins) -> None:
    model, engines = twins
    for engine in engines:
        engine.hold()
    stream = PlainStream(1, 12)
    async with scheduling(model, engines) as scheduler:
        scheduler.add(stream)
        for engine in engines:
            await wait_until_begun(engine)
        engines[1].let()  # indices 4 to 7
        later = PlainStream(2, 4)
        scheduler.add(later)
        await wait_until_begun(engines[1])
        got_early = list(stream.got)
        engines[0].let_all()
        engines[1].let_all()
        await stream.wait_for(12)
        await later.wait_for(4)

    assert got_early == []
    assert stream.got == list(range(12))


async def test_failed_batch_ends_a_stream_after_what_came_before_it_and_before_what_came_after(twins: Twins) -> None:
    model, engines = twins
    for engine in engines:
        engine.hold()
    engines[1].fails = lambda _: True
    stream = PlainStream(1, 12)
    async with scheduling(model, engines) as scheduler:
        scheduler.add(stream)
        for engine in engines:
            await wait_until_begun(engine)
        engines[1].let()
        engines[0].let_all()
        error = await stream.wait_for_error()

    assert isinstance(error, EngineRunError)
    assert stream.got == [0, 1, 2, 3]


async def test_replica_that_fails_again_and_again_is_left_out_and_the_model_stays_healthy(twins: Twins) -> None:
    model, engines = twins
    states: list[EngineState] = []
    replicas = Replicas(model, metrics=ServiceMetrics(), timeout_s=WAIT_S, on_state=states.append)
    engines[0].fails = lambda _: True
    outcomes = []
    for _ in range(4 * FAILURES_UNTIL_UNHEALTHY):
        try:
            await replicas.run(model.probe.inputs)
            outcomes.append(True)
        except EngineRunError:
            outcomes.append(False)
    await replicas.close()

    assert outcomes.count(False) == FAILURES_UNTIL_UNHEALTHY
    assert all(outcomes[2 * FAILURES_UNTIL_UNHEALTHY :])
    assert (replicas.state, replicas.num_usable, states) == (EngineState.HEALTHY, 1, [])


async def test_model_is_unhealthy_while_all_replicas_are_and_well_again_with_the_first(twins: Twins) -> None:
    model, engines = twins
    states: asyncio.Queue[EngineState] = asyncio.Queue()
    replicas = Replicas(
        model, metrics=ServiceMetrics(), timeout_s=WAIT_S, probe_interval_s=0.01, on_state=states.put_nowait
    )
    for engine in engines:
        engine.fails = lambda _: True
    for _ in range(2 * FAILURES_UNTIL_UNHEALTHY):
        with pytest.raises(EngineRunError):
            await replicas.run(model.probe.inputs)
    async with asyncio.timeout(WAIT_S):
        unhealthy = await states.get()
        engines[1].fails = None
        healthy = await states.get()
    await replicas.close()

    assert (unhealthy, healthy, replicas.num_usable) == (EngineState.UNHEALTHY, EngineState.HEALTHY, 1)


def other_numerics(model: ServedModel) -> ServedModel:
    return replace(model, numerics=Numerics(id="0" * 64, document="{}"))


def other_bits(model: ServedModel) -> ServedModel:
    return replace(model, probe=replace(model.probe, digests=(b"", *model.probe.digests[1:])))


@pytest.mark.parametrize("change", [other_numerics, other_bits])
def test_replicas_that_would_not_give_the_same_bits_are_refused(
    bundles: dict[str, Path], change: Callable[[ServedModel], ServedModel]
) -> None:
    model = load_model(bundles["tiny"])
    with pytest.raises(EngineStartError, match="expected the same"):
        join_replicas([model, change(model)])


class OtherImage(ScriptedEngine):
    """One bit of one pixel is another, as on a GPU of another kind, although the id is the same."""

    def run(self, inputs: LatentInputs) -> EngineBatch:
        batch = super().run(inputs)
        image = batch.image.copy()
        image[0, 0, 0, 0] ^= 1
        return replace(batch, image=image)


def test_replica_whose_warm_up_gives_other_bits_is_refused_although_its_id_is_the_same(
    bundles: dict[str, Path],
) -> None:
    bundle = open_bundle(bundles["tiny"])
    made = [serve_bundle(bundle, load_engine(bundle)), serve_bundle(bundle, OtherImage(load_engine(bundle)))]
    with pytest.raises(EngineStartError, match="outputs in the warm-up"):
        join_replicas(made)


class Drifting(ScriptedEngine):
    """One bit of one pixel is another in every run, as where a GPU adds up in the order in which it gets done."""

    count = 0

    def run(self, inputs: LatentInputs) -> EngineBatch:
        batch = super().run(inputs)
        self.count += 1
        image = batch.image.copy()
        image[0, 0, 0, 0] ^= self.count % 2
        return replace(batch, image=image)


def test_bits_that_are_promised_on_a_gpu_have_to_repeat(bundles: dict[str, Path]) -> None:
    bundle = open_bundle(bundles["tiny"])
    repeatable = EngineChoice(provider="cuda")
    with pytest.raises(EngineStartError, match=r"[12] of 4 rows .* 'repeatable'; choose 'fast'") as caught:
        serve_bundle(bundle, Drifting(load_engine(bundle)), repeatable)
    assert caught.value.field == "algorithms"
    model = serve_bundle(bundle, load_engine(bundle), repeatable)
    assert model.numerics == serve_bundle(bundle, load_engine(bundle)).numerics


def test_bits_that_are_not_promised_may_differ_and_the_numerics_say_so(bundles: dict[str, Path]) -> None:
    bundle = open_bundle(bundles["tiny"])
    fast = EngineChoice(provider="cuda", algorithms="fast")
    engines = [Drifting(load_engine(bundle)) for _ in range(2)]
    engines[1].count = 1
    models = [serve_bundle(bundle, engine, fast) for engine in engines]
    assert models[0].probe.digests != models[1].probe.digests
    join_replicas(models)
    assert json.loads(models[0].numerics.document)["repeatable"] is False
    assert models[0].numerics.id != serve_bundle(bundle, load_engine(bundle)).numerics.id
    assert models[0].probe.matches(models[1].probe.digests)
    assert not models[0].probe.matches((None, *models[1].probe.digests[1:]))


def test_device_without_a_gpu_provider_stops_the_start(bundles: dict[str, Path]) -> None:
    with pytest.raises(EngineStartError, match="provider is 'cpu'"):
        load_model(bundles["tiny"], EngineChoice(devices=(1,)))


class EnginesOfDevices:
    """Stands in the place of `models.load_engine`: the real engine on the processor, whichever GPU it is asked for.

    Attributes:
        made: The device and the engine of each call.
        missing: A device that is not there.
    """

    def __init__(self, *, missing: int | None = None) -> None:
        self.made: list[tuple[int | None, LoadingEngine]] = []
        self.missing = missing

    def __call__(self, bundle: Bundle, choice: EngineChoice, device: int | None) -> LoadingEngine:
        assert choice == EngineChoice(provider="cuda", devices=(0, 1))
        if device == self.missing:
            raise EngineStartError(f"there is no GPU {device}", field="devices")
        made = LoadingEngine(bundle)
        self.made.append((device, made))
        return made


def test_each_device_has_its_engine_and_one_stream_keeps_both_busy(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = EnginesOfDevices()
    monkeypatch.setattr("labelmint_service.models.served.load_engine", engines)
    flags = ("--bundle", str(bundles["tiny"]), "--provider", "cuda", "--devices", "0,1")
    [model] = load_models(load_settings(flags))
    made = [engine for _, engine in engines.made]
    for engine in made:
        engine.hold()
    with serving([model]) as running:
        request = make_request(max_accepted=40, output={"fields": EVERY_FIELD})
        stream = running.stub().Generate(request, timeout=TIMEOUT_S)
        for engine in made:
            engine.wait_until_begun()
        for engine in made:
            engine.let_all()
        got = collect(stream)

    assert [device for device, _ in engines.made] == [0, 1]
    assert [replica.engine for replica in model.replicas] == made
    assert got.indices == list(range(40))
    Truth(bundles["tiny"]).check(got)
    assert all(engine.closed.is_set() for engine in made)


def test_device_that_is_missing_stops_the_start_and_closes_the_engines_before_it(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = EnginesOfDevices(missing=1)
    monkeypatch.setattr("labelmint_service.models.served.load_engine", engines)
    with pytest.raises(EngineStartError, match="no GPU 1"):
        load_model(bundles["tiny"], EngineChoice(provider="cuda", devices=(0, 1)))

    [(device, engine)] = engines.made
    assert device == 0
    assert engine.closed.is_set()
