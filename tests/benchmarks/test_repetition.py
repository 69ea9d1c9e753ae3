"""Whether bits repeat: on the processor they do, and where they do not it is seen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.repetition.__main__ import draw_summary, main, measure_repetition


def test_bits_repeat_on_a_processor(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tiny), "--provider", "cpu", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "repetition.json").read_text())
    entry = report["options"]["as served"]
    assert entry["ms"] > 0
    assert {"image", "finite"} < set(entry["outputs"])
    for seen in entry["outputs"].values():
        assert seen == {"again": 0, "reversed": 0, "beside": 0, "largest": 0.0}
    assert draw_summary(report) in capsys.readouterr().out


@pytest.mark.parametrize("case", ["again", "reversed", "beside"])
def test_bits_that_do_not_repeat_are_counted(case: str) -> None:
    runs = 0

    def paint(ws: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[Any]]:
        nonlocal runs
        runs += 1
        image = ws.copy()
        if case == "again" and runs == 2:
            image[1, 0, 0] += 0.5
        if case == "reversed":
            image[0] += 1.0
        if case == "beside":
            image[0, 0, 0] += image[1, 0, 0]
        return {"image": image}

    ws = np.arange(1, 13, dtype=np.float32).reshape(3, 2, 2)
    seen = measure_repetition(paint, ws)["outputs"]["image"]
    assert [seen[name] for name in ("again", "reversed", "beside")] == {
        "again": [1, 0, 0],
        "reversed": [0, 8, 0],
        "beside": [0, 2, 1],
    }[case]
    assert seen["largest"] == {"again": 0.5, "reversed": 1.0, "beside": 5.0}[case]


def test_gpu_that_is_missing_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import onnxruntime  # noqa: PLC0415 - what there is differs

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert main(["--out", str(tmp_path)]) == 1
    assert "provider 'cuda' needs CUDAExecutionProvider" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
