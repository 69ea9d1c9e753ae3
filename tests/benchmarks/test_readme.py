"""README's tables of speed say what the result files say."""

import json
from pathlib import Path

import pytest

from benchmarks.readme import BEGIN, END, README, draw_speed, main
from benchmarks.reporting.files import RESULTS_FOLDER, write_json


def test_readme_holds_the_tables_of_the_committed_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert f"{BEGIN}\n{draw_speed(RESULTS_FOLDER)}\n{END}" in text, "run: python -m benchmarks.readme"


def test_each_command_stands_beside_what_it_measured(tmp_path: Path) -> None:
    for name in ("service", "service-fused"):
        report = json.loads((RESULTS_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        write_json(tmp_path / f"{name}.json", {**report, "time": name, "command": f"python -m {name}"})
    lines = draw_speed(tmp_path).splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("`")] == [
        "`python -m service`: service",
        "`python -m service-fused`: service-fused",
    ]


def test_model_that_is_not_the_embedded_one_is_named(tmp_path: Path) -> None:
    report = json.loads((RESULTS_FOLDER / "service.json").read_text(encoding="utf-8"))
    report["configuration"]["model"] = "mine"
    write_json(tmp_path / "service.json", report)
    assert "| onnxruntime, model mine instead |" in draw_speed(tmp_path)


def test_only_what_stands_between_the_marks_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n", encoding="utf-8")
    assert main(["--readme", str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n| engine, embedded model |")
    assert text.endswith(f"\n{END}after\n")
    assert "old" not in text


def test_results_that_are_not_there_leave_no_table(tmp_path: Path) -> None:
    assert draw_speed(tmp_path) == ""


def test_file_without_marks_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n", encoding="utf-8")
    assert main(["--readme", str(readme)]) == 1
    assert "lacks the marks" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == "no marks\n"
