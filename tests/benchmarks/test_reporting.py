"""What every result says of itself: command, commit, versions."""

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes.worker import ROOT
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.environment import describe_command, describe_commit, describe_environment


def git(root: Path, *arguments: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *names, *arguments], cwd=root, check=True, capture_output=True)


def is_modified(root: Path) -> object:
    commit = describe_commit(root)
    assert commit is not None
    return commit["modified"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("code.py", "README.md", "export/README.md", "benchmarks/results/one.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old", encoding="utf-8")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    return tmp_path


def test_what_benchmarks_write_is_no_change_of_the_commit(repository: Path) -> None:
    assert is_modified(repository) is False
    (repository / "benchmarks/results/one.json").write_text("new", encoding="utf-8")
    (repository / "README.md").write_text("new", encoding="utf-8")
    assert is_modified(repository) is False


@pytest.mark.parametrize("name", ["code.py", "export/README.md"])
def test_another_changed_file_is_a_change_of_the_commit(repository: Path, name: str) -> None:
    (repository / name).write_text("new", encoding="utf-8")
    assert is_modified(repository) is True


def test_folder_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_commit(tmp_path) is None


def test_command_is_what_one_types_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = str(ROOT / "out" / "a bundle")
    command = describe_command("benchmarks.curves", ["--bundle", inside, "--rounds", "2"])
    assert command == "python -m benchmarks.curves --bundle 'out/a bundle' --rounds 2"
    monkeypatch.setattr(sys, "argv", ["curves", "--seconds", "3"])
    assert describe_command("benchmarks.curves", None) == "python -m benchmarks.curves --seconds 3"


def test_versions_of_contenders_that_are_installed_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"pyarrow": "1", "openvino": "2", "nvidia-pytriton": "3"}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    versions = describe_environment("command")["versions"]
    assert isinstance(versions, dict)
    assert {name: one for name, one in versions.items() if name != "python"} == installed


def test_result_names_the_command_that_made_it(tmp_path: Path) -> None:
    given = ["--count", "3"]
    assert run_benchmark("picture_choice", given, lambda: {"measured": 1}, lambda _: "", tmp_path) == 0
    document = json.loads((tmp_path / "picture_choice.json").read_text(encoding="utf-8"))
    assert document["command"] == "python -m benchmarks.picture_choice --count 3"
    assert document["measured"] == 1
    assert len(document["load_average_after"]) == len(document["load_average"]) == 3


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")))
def test_place_that_cannot_hold_results_is_refused_before_the_measurement(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "file"
    place.touch()
    command = importlib.import_module(f"benchmarks.{folder}.__main__")
    with pytest.raises(SystemExit):
        command.main(["--out", str(place / "folder")])
    assert f"it is {place / 'folder'}, but {place} is a file, expected folders above it" in capsys.readouterr().err
