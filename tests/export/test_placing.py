"""Places of results are refused before any work is done, and before anything is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labelmint_export.cli import main
from labelmint_export.errors import OutputError
from labelmint_export.placing import check_file_place, check_folder_place, placed_whole
from labelmint_service.settings import EMBEDDED_BUNDLE

NOBODY = 65534
MISSING = "missing.safetensors"
COMMANDS = {
    "render": ["--out", "{}.npy", "--count", "1"],
    "train-gan": ["--pictures", "missing.npy", "--total-images", "16", "--out", "{}"],
    "nearest": ["--generator", MISSING, "--pictures", "missing.npy", "--feature-network", MISSING, "--out", "{}.png"],
    "keep-networks": ["--training", "missing", "--out", "{}"],
    "curve": ["--logs", "missing.jsonl", "--out", "{}.png"],
    "sample": ["--generator", MISSING, "--classes", "a", "b", "--out", "{}"],
    "label": ["--generator", MISSING, "--oracle", MISSING, "--out", "{}"],
    "train-oracle": ["--train", "missing.npz", "--test", "missing.npz", "--steps", "1", "--out", "{}.safetensors"],
    "train-interpreter": ["--generator", MISSING, "--annotations", "missing", "--out", "{}.safetensors"],
    "export": ["missing", "--generator", MISSING, "--interpreter", MISSING, "--target", "onnx", "--out", "{}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_place_below_a_file_is_refused_first(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("here")
    place = str(tmp_path / "file" / "result")
    assert main([command, *(argument.format(place) for argument in COMMANDS[command])]) == 1
    error = capsys.readouterr().err
    assert f"--out is {place}" in error
    assert f"{tmp_path / 'file'} is a file, expected folders above it" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_pipe_is_not_replaced_by_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    assert main(["render", "--out", str(pipe), "--count", "1"]) == 1
    assert f"--out is {pipe}, which is a device or a pipe" in capsys.readouterr().err
    assert pipe.is_fifo()


@pytest.mark.parametrize("command", [name for name, rest in COMMANDS.items() if rest[-1] == "{}.png"])
def test_ending_of_a_picture_is_checked_first(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [argument.replace(".png", ".txt").format(tmp_path / "result") for argument in COMMANDS[command]]
    assert main([command, *arguments]) == 1
    assert "expected a name that ends in .png" in capsys.readouterr().err


def test_file_of_verify_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("here")
    place = tmp_path / "file" / "report.json"
    arguments = ["--generator", MISSING, "--interpreter", MISSING, "--engine", "bundle", "--json", str(place)]
    assert main(["verify", str(EMBEDDED_BUNDLE), *arguments]) == 1
    assert f"--json is {place}" in capsys.readouterr().err


def test_folders_of_a_picture_are_made(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"images": 10, "resolution": 8, "reconstruction": 0.5}\n')
    out = tmp_path / "none" / "there" / "curve.png"
    assert main(["curve", "--logs", str(log), "--out", str(out)]) == 0
    assert out.is_file()


# --- folders of others ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_nobody(base: Path) -> Iterator[None]:
    """Become a user who owns nothing below `base` that is not his, but can look at it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    # pytest's are closed to others; there is one more of them where processes share the tests.
    own = [parent for parent in base.parents[:3] if parent.stat().st_uid == 0 and len(parent.parts) > 2]
    folders = [base, *own]
    modes = [folder.stat().st_mode for folder in folders]
    for folder in folders:
        folder.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in zip(folders, modes, strict=True):
            folder.chmod(mode)


def make_folder(path: Path, owner: int) -> Path:
    path.mkdir(mode=0o755)
    os.chown(path, owner, -1)
    return path


@pytest.mark.parametrize("check", [check_file_place, check_folder_place])
def test_place_in_a_folder_of_others_is_refused(check: Callable[[Path, str], None], tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    check(theirs / "deep" / "result", "--out")
    with as_nobody(tmp_path), pytest.raises(OutputError, match=r"nothing may be written to .*theirs, ") as caught:
        check(theirs / "deep" / "result", "--out")
    assert caught.value.field == "out"


def test_folder_that_is_filled_may_lie_among_those_of_others(tmp_path: Path) -> None:
    with as_nobody(tmp_path):
        pass  # skips where nobody can be played
    mine = make_folder(tmp_path / "mine", NOBODY)
    with as_nobody(tmp_path):
        check_folder_place(mine, "--out", filled=True)
        with pytest.raises(OutputError, match="nothing may be written to"):
            check_folder_place(mine, "--out")


def test_folder_of_others_is_not_filled(tmp_path: Path) -> None:
    with as_nobody(tmp_path):
        pass
    parent = make_folder(tmp_path / "parent", NOBODY)
    theirs = make_folder(parent / "theirs", 0)
    with as_nobody(tmp_path), pytest.raises(OutputError, match=r"nothing may be written to .*theirs, "):
        check_folder_place(theirs, "--out", filled=True)


def test_root_of_the_file_system_is_refused_as_any_other() -> None:
    check_folder_place(Path("/"), "--out", filled=True)
    with pytest.raises(OutputError, match="--out is /, which holds the folder that this runs in"):
        check_folder_place(Path("/"), "--out")


# --- folders that appear whole ----------------------------------------------------------------------------------------


def test_folder_that_the_command_runs_in_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "--generator", MISSING, "--classes", "a", "b", "--out", "."]) == 1
    assert "--out is ., which holds the folder that this runs in" in capsys.readouterr().err


def test_folder_where_something_is_mounted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    check_folder_place(tmp_path / "new", "--out")
    check_folder_place(tmp_path, "--out", filled=True)
    with pytest.raises(OutputError, match="where something is mounted, expected a folder that can be replaced"):
        check_folder_place(tmp_path, "--out")


@pytest.mark.parametrize("is_there", [True, False])
def test_link_leads_to_the_folder_that_was_written(tmp_path: Path, is_there: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to("target")
    if is_there:
        target.mkdir()
        (target / "old").touch()
    with placed_whole(link) as staging:
        (staging / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "new", "target"]
    assert link.is_symlink()
    assert (link / "new").is_file()


def test_interrupted_replacement_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    rename = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if ".building-" in path.name:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), placed_whole(out) as staging:
        (staging / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]
