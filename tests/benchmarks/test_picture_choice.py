"""How well chosen pictures stand for the others."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.picture_choice.__main__ import main, measure_rules
from labelmint_export.generator.snapshots import save_generator
from tests.export.tiny_parts import make_generator


def test_distances_are_root_mean_squares_to_the_nearest() -> None:
    candidates = torch.tensor([[0.0, 0.0, 0.0, 0.0], [10.0, 10.0, 10.0, 10.0]])
    others = torch.tensor([[1.0, 1.0, 1.0, 1.0], [8.0, 8.0, 8.0, 8.0], [0.0, 0.0, 0.0, 0.0]])
    measured = measure_rules(candidates, others, {"both": torch.tensor([0, 1]), "one": torch.tensor([1])})
    assert measured["both"] == {"mean": 1.0, "p95": 1.9, "max": 2.0}
    assert measured["one"]["max"] == 10.0


def test_every_rule_is_measured_on_a_generator(tmp_path: Path) -> None:
    save_generator(make_generator(), tmp_path / "g.safetensors")
    sizes = ["--count", "3", "--candidates", "12", "--others", "9"]
    assert main(["--generator", str(tmp_path / "g.safetensors"), *sizes, "--out", str(tmp_path)]) == 0
    rules = json.loads((tmp_path / "picture_choice.json").read_text())["rules"]
    assert "farthest pictures (--diverse)" in rules
    assert all(0 < one["mean"] <= one["p95"] <= one["max"] for one in rules.values())


def test_more_pictures_than_candidates_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--count", "9", "--candidates", "4"])
    assert "count is 9, expected at most the 4 candidates" in capsys.readouterr().err
