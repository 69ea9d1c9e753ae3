"""A short run with a tiny model, and what counts as a fault."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endurance.__main__ import find_faults, main
from benchmarks.endurance.measuring import summarize_memory
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
