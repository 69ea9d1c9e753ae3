"""A short run with a tiny model, and what counts as a fault."""

import asyncio
import copy
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.endurance import measuring
from benchmarks.endurance.__main__ import find_faults, main
from benchmarks.endurance.measuring import summarize_memory
from benchmarks.errors import WorkerError
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.worker import Worker
from labelmint.bundle import open_bundle
from tests.tiny_bundle import write_tiny_bundle

SOUND: dict[str, Any] = {
    "errors": [],
    "least_samples_of_a_stream": 3,
    "health_failed": 0,
    "health_ms": {"p99": 20.0},
    "memory": {"after_warm_up_mib": 100.0, "at_the_end_mib": 101.0},
}


def test_short_run_reads_every_stream_and_writes_the_command_beside_the_result(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    flags = ["--bundle", str(bundle), "--engine", "onnxruntime", "--streams", "12", "--seconds", "2"]
    status = main([*flags, "--out", str(tmp_path)])
    report = json.loads((tmp_path / "endurance.json").read_text(encoding="utf-8"))
    result = report["result"]
    assert not result["errors"]
    assert result["health_failed"] == 0
    assert result["least_samples_of_a_stream"] > 0
    assert result["samples"] >= 12
    assert status == (1 if report["faults"] else 0)
    assert report["command"].startswith(f"python -m benchmarks.endurance --bundle {bundle} --engine onnxruntime ")
    assert report["digest"] == open_bundle(bundle).digest
    assert f"`{report['command']}`" in (tmp_path / "endurance.md").read_text(encoding="utf-8")


class Streams:
    """A client whose first stream ends, whose second fails as nothing should, and whose others go on."""

    def __init__(self, address: str) -> None:
        pass

    async def generate(self, model: str, *, seed: int, **chosen: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(index=0)
        if seed == 1:
            raise ValueError("what no stream should raise")
        if seed > 1:
            await asyncio.Event().wait()

    async def close(self) -> None:
        pass


def endure_streams(exit_status: int | None) -> dict[str, object]:
    server = SimpleNamespace(address="", pid=os.getpid(), exit_status=lambda: exit_status)
    prober = SimpleNamespace(ask=lambda _, timeout_s: {"durations_ns": [timeout_s], "failed": 0})
    return asyncio.run(measuring._endure(cast(ServerProcess, server), cast(Worker, prober), "tiny", 3, 1.0))


def test_stream_that_ends_or_fails_as_nothing_should_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "AsyncClient", Streams)
    monkeypatch.setattr(measuring, "summarize_memory", lambda _: {})
    assert endure_streams(exit_status=None)["errors"] == [
        "stream 0: it ended after 1 samples, but is endless",
        "stream 1: ValueError('what no stream should raise')",
    ]


def test_server_that_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "AsyncClient", Streams)
    with pytest.raises(WorkerError, match="the server ended with status -9 while its streams were read"):
        endure_streams(exit_status=-9)


def test_time_too_short_for_a_line_through_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--seconds", "1.9"])
    assert "seconds is 1.9, expected at least 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"errors": ["stream 1: gone"]}, "stream 1: gone"),
        ({"least_samples_of_a_stream": 0}, "no sample"),
        ({"health_failed": 2}, "2 health checks"),
        ({"health_ms": {"p99": 100.0}}, "p99 of health checks is 100.0 ms"),
        ({"memory": {"after_warm_up_mib": 100.0, "at_the_end_mib": 105.5}}, "grew by 5.5%"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_a_fault(change: dict[str, Any], text: str) -> None:
    assert not find_faults(SOUND)
    [fault] = find_faults({**copy.deepcopy(SOUND), **change})
    assert text in fault


def test_memory_counts_from_the_end_of_the_warm_up() -> None:
    mib = 2**20
    memory = [(float(second), (50 if second < 25 else 100 + second - 25) * mib) for second in range(101)]
    assert summarize_memory(memory) == {
        "after_warm_up_mib": 100.0,
        "at_the_end_mib": 175.0,
        "mib_per_minute": 60.0,
        "peak_mib": 175.0,
    }
