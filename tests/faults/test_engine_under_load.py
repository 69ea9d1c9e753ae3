"""Engines that fail, run out of memory, give no numbers or hang, under eight readers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from labelmint.addresses import latents
from labelmint.bundle import open_bundle
from labelmint_client import Client, RetryPolicy, ServerFaultError
from labelmint_service.engine import EngineBatch, LatentInputs
from labelmint_service.errors import EngineMemoryError
from tests.faults.readers import KINDS, PATIENT, WAIT_S, free_port, reading
from tests.service.scripted_engine import scripted_model
from tests.service.server_process import server_process
from tests.serving import serving
from tests.tiny_bundle import write_tiny_bundle

ROOT = Path(__file__).parents[2]
AT_ONCE = RetryPolicy(max_attempts=1, connect_attempts=1)
LOST_STATUS = 3


def test_rows_that_fail_every_run_end_their_stream_and_no_other(tiny: Path) -> None:
    model, engine = scripted_model(tiny)
    bad_index = 60
    bad = latents(0, np.array([bad_index], dtype=np.uint64), model.bundle.manifest.backbone.z_dim)
    engine.fails = lambda z: bool((z == bad).all(axis=1).any())
    with serving([model]) as running, reading(lambda _: Client(running.address, retry=AT_ONCE)) as readers:
        readers.wait_until_begun()
        error = readers.failure(0)
        assert isinstance(error, ServerFaultError)
        assert error.next_index is not None
        assert bad_index - engine.batch_size < error.next_index <= bad_index
        engine.fails = None
        with Client(running.address) as client:
            assert not any(readers.finish(client, lost=[0]))


def test_memory_that_runs_out_under_readers_halves_the_batch_and_disturbs_none(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, engine = scripted_model(tiny)
    run = engine.run
    most_rows = engine.batch_size

    def little_memory(inputs: LatentInputs) -> EngineBatch:
        if engine.batch_size > most_rows:
            raise EngineMemoryError("memory ran out")
        return run(inputs)

    monkeypatch.setattr(engine, "run", little_memory)
    with serving([model]) as running, reading(lambda _: Client(running.address, retry=AT_ONCE)) as readers:
        readers.wait_until_begun()
        most_rows = 1
        with Client(running.address) as client:
            assert not any(readers.finish(client))
        assert engine.batch_size == 1


def test_sample_without_numbers_ends_its_stream_there_and_no_other(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", poison_above=2.0)
    z_dim = open_bundle(bundle).manifest.backbone.z_dim
    with serving([bundle]) as running, reading(lambda _: Client(running.address, retry=AT_ONCE)) as readers:
        for seed, kind in enumerate(KINDS):
            first, step = kind.get("start_index", 0) + kind.get("shard_index", 0), kind.get("num_shards", 1)
            indices = np.uint64(first) + np.uint64(step) * np.arange(2_000, dtype=np.uint64)
            poisoned = indices[latents(seed, indices, z_dim)[:, 0] > 2.0]
            error = readers.failure(seed)
            assert isinstance(error, ServerFaultError)
            assert error.next_index == int(poisoned[0]) + 1, kind


HUNG_SERVER = """
import sys
from pathlib import Path
from labelmint_service import cli as program
from tests.service.scripted_engine import scripted_model

model, engine = scripted_model(Path(sys.argv[1]))
engine.hold()
engine.let(int(sys.argv[2]))
program.load_models = lambda settings: [model]
sys.exit(program.main(["--port", sys.argv[3], "--no-metrics", "--engine-timeout-s", "0.5"]))
"""


@contextmanager
def server_that_hangs(bundle: Path, num_runs: int, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server whose engine answers so often, and then never again."""
    command = [sys.executable, "-c", HUNG_SERVER, str(bundle), str(num_runs), str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            assert "ready at" in process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(3_600)
def test_readers_outlive_engines_that_hang_and_servers_that_are_started_again(
    tiny: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with server_that_hangs(tiny, 30, port) as first, reading(lambda _: Client(address, retry=PATIENT)) as readers:
        assert first.wait(WAIT_S) == LOST_STATUS
        for _ in range(int(request.config.getoption("--fault-s")) // 2):  # what a supervisor does
            with server_that_hangs(tiny, 50, port) as again:
                assert again.wait(WAIT_S) == LOST_STATUS
        flags = ("--bundle", str(tiny), "--port", str(port))
        with server_process(tmp_path, *flags), Client(address) as client:
            assert all(readers.finish(client))
