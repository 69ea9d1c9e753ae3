"""Runtimes side by side on the generator of a bundle."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import ParityError
from benchmarks.runtimes.__main__ import compare_outputs, draw_summary, main


def test_a_runtime_is_measured_in_turns_of_its_own_process(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--batch-sizes", "2", "--rounds", "2", "--runs", "1", "--runtimes", "onnxruntime"]
    assert main(["--bundles", str(tiny), *few, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "runtimes.json").read_text())
    [entry] = report["entries"]
    assert entry["ms_a_picture"]["onnxruntime"] > 0
    assert entry["times_the_first"] == {"onnxruntime": 1.0}
    assert draw_summary(report) in capsys.readouterr().out


def test_other_outputs_are_no_result() -> None:
    image = np.linspace(-1, 1, 12).reshape(3, 4)
    assert compare_outputs({"a": {"image": image}, "b": {"image": image + 1e-4}}) == {"b": pytest.approx(1e-4)}
    with pytest.raises(ParityError, match=r"'image' of b differs from a's by 1\.0e-02"):
        compare_outputs({"a": {"image": image}, "b": {"image": image + 1e-2}})
    levels = np.arange(12, dtype=np.uint8)
    assert compare_outputs({"a": {"image": levels}, "b": {"image": levels + 1}}) == {"b": 0.0}
    with pytest.raises(ParityError, match="'image' of b differs"):
        compare_outputs({"a": {"image": levels}, "b": {"image": levels + 2}})
    with pytest.raises(ParityError, match=r"'image' of b has shape \[4\], expected \[3, 4\]"):
        compare_outputs({"a": {"image": image}, "b": {"image": image[0]}})
    with pytest.raises(ParityError, match="b gives no 'image'"):
        compare_outputs({"a": {"image": image}, "b": {}})
