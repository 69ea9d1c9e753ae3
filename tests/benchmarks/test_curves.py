"""The curves of a tiny bundle: real engine, real server, real calls."""

import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.curves.__main__ import main
from benchmarks.curves.load import _plan_calls
from benchmarks.errors import BenchmarkError
from labelmint.bundle import open_bundle


def test_curves_are_measured_and_drawn(tiny: Path, tmp_path: Path) -> None:
    arguments = ["--bundle", str(tiny), "--engines", "onnxruntime", "--sizes", "1", "3", "--rounds", "2"]
    assert main([*arguments, "--loads", "0.2", "0.5", "--seconds", "1.5", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "curves.json").read_text(encoding="utf-8"))
    assert report["command"].startswith(f"python -m benchmarks.curves --bundle {tiny} --engines onnxruntime ")
    assert report["digest"] == open_bundle(tiny).digest
    batches = report["batches"]["onnxruntime"]
    assert list(batches) == ["1", "3"]
    for size, entry in batches.items():
        assert abs(entry["samples_per_s"] * entry["run_ms"] / 1e3 - int(size)) < 0.01
    loads = report["loads"]["onnxruntime"]
    assert list(loads["loads"]) == ["0.2", "0.5"]
    for load, entry in loads["loads"].items():
        assert abs(entry["calls_per_s"] - float(load) * loads["answered_per_s"]) < 0.01
        latency = entry["latency_ms"]
        assert 0 < latency["p50"] <= latency["p99"]
        assert latency["n"] > 0
    for name in ("throughput-by-batch", "latency-by-load"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 500


def test_calls_come_at_the_rate_of_the_load_and_at_random() -> None:
    due = _plan_calls(0.5, 20.0, 100.0, seed=1)
    assert due == sorted(due)
    assert due[0] > 0
    assert due[-1] < 100
    assert 1850 < len(due) < 2150  # Poisson: 2000, standard deviation 45
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert 0.34 < sum(gap > 1 / 20 for gap in gaps) / len(gaps) < 0.40  # exponential: 1 / e


def test_load_so_low_that_no_call_comes_is_an_error() -> None:
    with pytest.raises(
        BenchmarkError, match=r"at load 0\.001, which is 0\.002 calls a second here, no call comes in 1 s"
    ):
        _plan_calls(0.001, 0.002, 1.0, seed=1)


def test_nothing_to_draw_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--draw", "--out", str(tmp_path)])
    assert "curves.json to draw; measure first" in capsys.readouterr().err
