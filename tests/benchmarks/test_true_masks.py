"""Interpreter and oracle against true masks: on the embedded model, with few pictures."""

import json
from pathlib import Path

import pytest

from benchmarks.true_masks.__main__ import main
from labelmint_export.datasets.toonhead import CLASS_NAMES


def test_codes_paint_the_parts_of_their_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Codes of other pictures would bring background and hair together by chance alone, and no eyes."""
    assert main(["--count", "6", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    scores = json.loads((tmp_path / "true_masks.json").read_text())["scores"]
    for name in ("interpreter", "oracle"):
        assert list(scores[name]["iou"]) == list(CLASS_NAMES)
        assert scores[name]["miou"] > 0.8
        assert scores[name]["iou"]["eyes"] > 0.75
        assert f"{scores[name]['miou']:.3f}" in printed


def test_training_without_codes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "20001", "--out", str(tmp_path)]) == 1
    assert "has 20000 codes, expected at least 20001" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
