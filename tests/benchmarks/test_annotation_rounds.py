"""Interpreters of pictures annotated at once, and in two rounds."""

import json
from pathlib import Path

import pytest

from benchmarks.annotation_rounds.__main__ import AT_ONCE, IN_ROUNDS, draw_summary, main


def test_both_ways_are_judged_for_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--count", "4", "--candidates", "6", "--judged", "2", "--members", "2", "--steps", "20", "--copies", "1"]
    assert main([*sizes, "--seeds", "5", "--out", str(tmp_path)]) == 0
    runs = json.loads((tmp_path / "annotation_rounds.json").read_text())["runs"]
    assert [(run["seed"], run["way"]) for run in runs] == [(5, AT_ONCE), (5, IN_ROUNDS)]
    assert runs[0]["miou"] != runs[1]["miou"], "the other pictures were others"
    assert runs[0]["iou"]["background"] > 0.5
    assert draw_summary(runs) in capsys.readouterr().out


def test_copies_that_cannot_be_made_end_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "4", "--candidates", "6", "--copies", "2", "--seeds", "5", "--out", str(tmp_path)]) == 1
    assert "recoloured_copies is 2, expected 1 to 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", ["1", "7"])
def test_pictures_that_make_no_two_rounds_are_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--count", count, "--candidates", "6"])
    assert f"count is {count}, expected 2, a picture a round, to the 6 candidates" in capsys.readouterr().err


def test_summary_has_the_mean_of_the_seeds() -> None:
    runs = [
        {"seed": seed, "way": way, "miou": miou, "iou": {}}
        for seed, way, miou in ((1, AT_ONCE, 0.5), (1, IN_ROUNDS, 0.6), (2, AT_ONCE, 0.7), (2, IN_ROUNDS, 0.9))
    ]
    last = draw_summary(runs).strip().splitlines()[-1]
    assert [cell.strip() for cell in last.strip("|").split("|")] == ["mean", "0.600", "0.750"]
