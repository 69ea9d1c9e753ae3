"""Engines that run out of memory, fail again and again, or never answer; with a real engine behind the faults."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint.addresses import latents
from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client import Client, RetryPolicy, ServerFaultError, ServerUnavailableError
from labelmint_service.engine import EngineBatch, LatentInputs
from labelmint_service.errors import EngineLostError, EngineMemoryError, EngineRunError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.models.served import ServedModel
from labelmint_service.scheduling.engine_runner import FAILURES_UNTIL_UNHEALTHY, EngineRunner, EngineState
from tests.frames import watch_without_reading
from tests.service.calls import collect, expect_failure, make_request
from tests.service.reading import read_metrics
from tests.service.scripted_engine import WAIT_S, ScriptedEngine, scripted_model
from tests.serving import Serving, serving

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
ROOT = Path(__file__).parents[2]
Scripted = tuple[ServedModel, ScriptedEngine]


@pytest.fixture
def scripted(bundles: dict[str, Path]) -> Scripted:
    return scripted_model(bundles["tiny"])


@asynccontextmanager
async def running(
    model: ServedModel, *, timeout_s: float = WAIT_S, probe_interval_s: float = WAIT_S
) -> AsyncIterator[tuple[EngineRunner, asyncio.Queue[EngineState]]]:
    states: asyncio.Queue[EngineState] = asyncio.Queue()
    runner = EngineRunner(
        model,
        metrics=ServiceMetrics(),
        timeout_s=timeout_s,
        probe_interval_s=probe_interval_s,
        on_state=states.put_nowait,
    )
    try:
        yield runner, states
    finally:
        await runner.close()


class LittleMemory:
    """Has memory for so many rows at a time."""

    def __init__(self, engine: ScriptedEngine, num_rows: int) -> None:
        self.sizes: list[int] = []
        self._engine, self._num_rows, self._run = engine, num_rows, engine.run

    def __call__(self, inputs: LatentInputs) -> EngineBatch:
        self.sizes.append(self._engine.batch_size)
        if self._engine.batch_size > self._num_rows:
            raise EngineMemoryError("memory ran out")
        return self._run(inputs)


async def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(scripted: Scripted) -> None:
    model, engine = scripted
    inputs = model.probe.inputs
    expected = engine.run(inputs)
    engine.run = memory = LittleMemory(engine, 1)  # type: ignore[method-assign]  # the fault
    async with running(model) as (runner, states):
        outputs = await runner.run(inputs)
        assert engine.batch_size == 1
        assert runner.state is EngineState.HEALTHY
        assert states.empty()
        again = await runner.run(inputs)
    for name in ("image", "label", "uncertainty_map", "keypoints", "finite"):
        np.testing.assert_array_equal(getattr(outputs, name), getattr(expected, name))
        np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))
    assert memory.sizes[:3] == [4, 2, 1]


async def test_smaller_batch_that_gives_other_bits_is_not_taken(scripted: Scripted) -> None:
    model, engine = scripted
    digests = (b"other", *model.probe.digests[1:])
    model = replace(model, probe=replace(model.probe, digests=digests))
    engine.run = LittleMemory(engine, 2)  # type: ignore[method-assign]  # the fault
    async with running(model) as (runner, _):
        with pytest.raises(EngineMemoryError):
            await runner.run(model.probe.inputs)
    assert engine.batch_size == 4


async def test_engine_without_another_size_fails_the_run(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    model, engine = scripted
    engine.run = LittleMemory(engine, 2)  # type: ignore[method-assign]  # the fault
    monkeypatch.setattr(engine, "resize", lambda _: False)  # as one with buffers of a fixed size
    async with running(model) as (runner, _):
        with pytest.raises(EngineMemoryError):
            await runner.run(model.probe.inputs)


async def test_engine_that_fails_again_and_again_is_unhealthy_until_its_probe_passes(
    scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    model, engine = scripted
    engine.fails = lambda _: True
    async with running(model, probe_interval_s=0.001) as (runner, states):
        for number in range(FAILURES_UNTIL_UNHEALTHY):
            assert (runner.state is EngineState.HEALTHY) == (number < FAILURES_UNTIL_UNHEALTHY)
            with pytest.raises(EngineRunError):
                await runner.run(model.probe.inputs)
        assert await states.get() is EngineState.UNHEALTHY
        probed = asyncio.Event()
        loop = asyncio.get_running_loop()
        engine.fails = lambda _: loop.call_soon_threadsafe(probed.set) is not None
        await asyncio.wait_for(probed.wait(), WAIT_S)
        engine.fails = None
        assert await asyncio.wait_for(states.get(), WAIT_S) is EngineState.HEALTHY
        assert "engine.probe_failed" in caplog.messages
        await runner.run(model.probe.inputs)


async def test_probe_that_runs_out_of_memory_is_not_the_last(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, engine = scripted
    monkeypatch.setattr(engine, "resize", lambda _: False)
    probed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(_inputs: LatentInputs) -> EngineBatch:
        if len(engine.runs) > FAILURES_UNTIL_UNHEALTHY:
            loop.call_soon_threadsafe(probed.set)
        engine.runs.append(model.probe.inputs.z)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(engine, "run", fail)
        async with running(model, probe_interval_s=0.001) as (runner, states):
            for _ in range(FAILURES_UNTIL_UNHEALTHY):
                with pytest.raises(EngineMemoryError):
                    await runner.run(model.probe.inputs)
            assert await states.get() is EngineState.UNHEALTHY
            await asyncio.wait_for(probed.wait(), WAIT_S)
            patched.undo()
            assert await asyncio.wait_for(states.get(), WAIT_S) is EngineState.HEALTHY


async def test_failures_with_successes_between_them_leave_an_engine_healthy(scripted: Scripted) -> None:
    model, engine = scripted
    async with running(model) as (runner, states):
        for _ in range(2 * FAILURES_UNTIL_UNHEALTHY):
            engine.fails = lambda _: True
            with pytest.raises(EngineRunError):
                await runner.run(model.probe.inputs)
            engine.fails = None
            await runner.run(model.probe.inputs)
        assert states.empty()


async def test_run_that_never_ends_loses_the_engine(scripted: Scripted) -> None:
    model, engine = scripted
    engine.hold()
    async with running(model, timeout_s=0.05) as (runner, states):
        for _ in range(2):
            with pytest.raises(EngineLostError, match=r"has not answered for 0\.05 s"):
                await runner.run(model.probe.inputs)
        assert await states.get() is EngineState.LOST
    assert len(engine.runs) == 1
    engine.let_all()


class Altered:
    """Alters what comes out of an engine."""

    def __init__(self, engine: ScriptedEngine, alter: Callable[[EngineBatch], EngineBatch]) -> None:
        self._run, self._alter = engine.run, alter

    def __call__(self, inputs: LatentInputs) -> EngineBatch:
        return self._alter(self._run(inputs))


def without_finite_rows(batch: EngineBatch) -> EngineBatch:
    return replace(batch, finite=np.zeros_like(batch.finite))


async def test_engine_whose_rows_are_never_finite_is_unhealthy_until_its_probe_passes(scripted: Scripted) -> None:
    model, engine = scripted
    sound, engine.run = engine.run, Altered(engine, without_finite_rows)  # type: ignore[method-assign]  # the fault
    async with running(model, probe_interval_s=0.001) as (runner, states):
        for _ in range(FAILURES_UNTIL_UNHEALTHY):
            assert states.empty()
            await runner.run(model.probe.inputs)
        assert await asyncio.wait_for(states.get(), WAIT_S) is EngineState.UNHEALTHY
        engine.run = sound  # type: ignore[method-assign]
        assert await asyncio.wait_for(states.get(), WAIT_S) is EngineState.HEALTHY


async def test_rows_of_a_caller_that_are_never_finite_leave_the_engine_healthy(scripted: Scripted) -> None:
    model, engine = scripted
    poisoned = replace(model.probe.inputs, z=np.full_like(model.probe.inputs.z, np.nan))
    async with running(model) as (runner, states):
        for _ in range(2 * FAILURES_UNTIL_UNHEALTHY):
            assert not (await runner.run(poisoned)).finite.any()
        await runner.run(model.probe.inputs)  # after the probe, which is in line before it
        assert states.empty()
    assert len(engine.runs) > 2 * FAILURES_UNTIL_UNHEALTHY + 1, "nobody probed"


@pytest.mark.parametrize("error", [ValueError("a shape"), RuntimeError("a device"), MemoryError()])
async def test_whatever_an_engine_raises_is_an_engine_error(scripted: Scripted, error: Exception) -> None:
    model, engine = scripted

    def fail(_inputs: LatentInputs) -> EngineBatch:
        raise error

    engine.run = fail  # type: ignore[method-assign, assignment]  # the fault
    async with running(model) as (runner, _):
        with pytest.raises(EngineRunError, match="memory" if isinstance(error, MemoryError) else str(error)):
            await runner.run(model.probe.inputs)


@pytest.mark.parametrize("name", ["image", "label", "uncertainty_map", "keypoints", "finite"])
async def test_batch_that_lacks_a_row_is_an_engine_error(scripted: Scripted, name: str) -> None:
    model, engine = scripted
    cut = Altered(engine, lambda batch: replace(batch, **{name: getattr(batch, name)[:-1]}))
    engine.run = cut  # type: ignore[method-assign]  # the fault
    async with running(model) as (runner, _):
        with pytest.raises(EngineRunError, match=f"3 rows of {name}, expected 4"):
            await runner.run(model.probe.inputs)


async def test_run_that_waits_for_another_has_its_own_time(scripted: Scripted) -> None:
    model, engine = scripted

    def take_long(batch: EngineBatch) -> EngineBatch:
        time.sleep(0.8)
        return batch

    engine.run = Altered(engine, take_long)  # type: ignore[method-assign]  # the fault
    async with running(model, timeout_s=2.0) as (runner, states):
        await asyncio.gather(*(runner.run(model.probe.inputs) for _ in range(4)))
        assert states.empty()


# --- through a server -------------------------------------------------------------------------------------------------


@contextmanager
def watching(served: Serving, model: str) -> Iterator[Callable[[int], None]]:
    """Gives a function that waits until health says a status."""
    stub = health_pb2_grpc.HealthStub(served.channel())
    call = stub.Watch(health_pb2.HealthCheckRequest(service=model), timeout=WAIT_S)

    def wait_for(status: int) -> None:
        assert any(answer.status == status for answer in call), "the watch ended"

    yield wait_for
    call.cancel()


def test_health_tells_of_an_engine_that_fails(scripted: Scripted) -> None:
    model, engine = scripted
    with (
        serving([model]) as served,
        watch_without_reading(served.address, model.name),
        watching(served, model.name) as wait_for,
    ):
        wait_for(SERVING)
        before = read_metrics(served)
        engine.fails = lambda _: True
        with Client(served.address, retry=RetryPolicy(max_attempts=1)) as client:
            for _ in range(FAILURES_UNTIL_UNHEALTHY):
                with pytest.raises(ServerFaultError):
                    next(client.generate(model.name, seed=1, count=1))
        wait_for(NOT_SERVING)
        during = read_metrics(served)
        engine.fails = None
        wait_for(SERVING)
        after = read_metrics(served)
    healthy = ("labelmint_engine_healthy", model.name)
    assert (before[healthy], during[healthy], after[healthy]) == (1, 0, 1)
    assert during["labelmint_engine_errors_total", "run", model.name] == FAILURES_UNTIL_UNHEALTHY


def test_lost_engine_ends_streams_with_a_resume_point_and_the_server(scripted: Scripted) -> None:
    model, engine = scripted
    with serving([model], engine_timeout_s=1.0) as served, watching(served, model.name) as wait_for:
        wait_for(SERVING)
        engine.hold()
        engine.let(1)
        request = service_pb2.GenerateRequest(model=model.name, seed=1, max_accepted=100)
        failure = expect_failure(served.stub().Generate(request))
        assert failure.code == "UNAVAILABLE"
        assert failure.detail is not None
        assert failure.detail.next_index == 4
        assert [index for batch in failure.batches for index in batch.indices] == [0, 1, 2, 3]
        wait_for(NOT_SERVING)
        assert served.server.lost.is_set()
        metrics = read_metrics(served)
        assert metrics["labelmint_engine_healthy", model.name] == 0
        assert metrics["labelmint_engine_errors_total", "lost", model.name] == 1
        with (
            Client(served.address, retry=RetryPolicy(max_attempts=1)) as client,
            pytest.raises(ServerUnavailableError),
        ):
            next(client.generate(model.name, seed=1, count=1))
        engine.let_all()


def test_memory_that_runs_out_is_counted_and_a_stream_goes_on(scripted: Scripted) -> None:
    model, engine = scripted
    engine.run = LittleMemory(engine, 2)  # type: ignore[method-assign]  # the fault
    with serving([model]) as served:
        assert collect(served.stub().Generate(make_request(max_accepted=12), timeout=WAIT_S)).indices == list(range(12))
        metrics = read_metrics(served)
    assert metrics["labelmint_engine_errors_total", "memory", model.name] == 1
    assert metrics["labelmint_engine_healthy", model.name] == 1


def test_batch_with_a_sample_that_is_not_finite_is_counted(bundles: dict[str, Path]) -> None:
    bad = int(np.argmax(latents(7, np.arange(200, dtype=np.uint64), 8)[:, 0] > 1.0))
    with serving([bundles["poisoned"]]) as served:
        request = make_request(model="poisoned", max_accepted=200, end_index=bad + 1)
        assert expect_failure(served.stub().Generate(request, timeout=WAIT_S)).code == "DATA_LOSS"
        metrics = read_metrics(served)
    assert metrics["labelmint_engine_errors_total", "non_finite", "poisoned"] == 1
    assert metrics["labelmint_engine_healthy", "poisoned"] == 1


def test_streams_beside_one_whose_rows_make_the_engine_raise_go_on(scripted: Scripted) -> None:
    model, engine = scripted
    whole, bad = engine.run, latents(13, np.arange(1, dtype=np.uint64), model.probe.inputs.z.shape[1])

    def raise_for_one(inputs: LatentInputs) -> EngineBatch:
        if (inputs.z == bad).all(axis=1).any():
            raise ValueError("no error of ours")
        return whole(inputs)

    engine.run = raise_for_one  # type: ignore[method-assign]  # the fault
    engine.hold()
    with serving([model]) as served:
        first, others = (
            served.stub().Generate(service_pb2.GenerateRequest(model=model.name, seed=seed, max_accepted=40))
            for seed in (12, 13)
        )
        engine.let_all()
        assert sum(len(batch.indices) for batch in first) == 40
        assert expect_failure(others).code == "INTERNAL"


HUNG_SERVER = """
import sys
import threading
from pathlib import Path
from labelmint_service import cli as program
from tests.service.scripted_engine import scripted_model

model, engine = scripted_model(Path(sys.argv[1]))
engine.hold()
threading.Thread(target=lambda: (engine.wait_until_begun(), print("a run began", flush=True)), daemon=True).start()
program.load_models = lambda settings: [model]
sys.exit(program.main(["--port", "0", "--no-metrics", "--ready-file", *sys.argv[2:]]))
"""


@contextmanager
def hung_server(bundle: Path, ready_file: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server as a process, whose engine answers nothing from the start, and its address."""
    command = [sys.executable, "-c", HUNG_SERVER, str(bundle), str(ready_file), *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready at" in process.stdout.readline()
            yield process, json.loads(ready_file.read_text(encoding="utf-8"))["address"]
        finally:
            process.kill()


@pytest.mark.parametrize(("grace_s", "num_signals"), [("0.5", 1), ("600", 2)], ids=["grace is over", "second signal"])
def test_run_that_does_not_end_cannot_keep_a_server_from_ending(
    bundles: dict[str, Path], tmp_path: Path, grace_s: str, num_signals: int
) -> None:
    with hung_server(bundles["tiny"], tmp_path / "ready.json", "--grace-s", grace_s) as (process, address):
        request = service_pb2.GenerateRequest(model="tiny", seed=1, max_accepted=1)
        with grpc.insecure_channel(address) as channel:
            stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
            call = stub.Generate(request, timeout=WAIT_S)
            assert process.stderr is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "a run began\n"
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert any("server.draining" in line for line in process.stderr)
            for _ in range(num_signals - 1):
                process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=WAIT_S)
            took_s = time.monotonic() - began_s
            assert expect_failure(call).code == "UNAVAILABLE"
    assert process.returncode == 0
    assert "server.still_at_work" in errors
    assert "was still at work when the grace was over" in errors
    assert took_s < 10.0
    assert not (tmp_path / "ready.json").exists()


def test_process_ends_for_its_supervisor_when_an_engine_is_lost(bundles: dict[str, Path], tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    with hung_server(bundles["tiny"], ready_file, "--engine-timeout-s", "0.5") as (process, address):
        retry = RetryPolicy(max_attempts=1, connect_attempts=1)
        with Client(address, retry=retry) as client, pytest.raises(ServerUnavailableError):
            next(client.generate("tiny", seed=1, count=1))
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 3
    assert "start the server again" in errors
    assert not ready_file.exists()
