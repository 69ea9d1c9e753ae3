"""The curves of a tiny bundle: real engine, real server, real calls."""

import json
from pathlib import Path

from PIL import Image

from benchmarks.curves.__main__ import main
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
