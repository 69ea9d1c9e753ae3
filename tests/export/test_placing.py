"""Places of results are refused before any work is done, and before anything is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labelmint_export.cli import main
from labelmint_export.errors import OutputError
from labelmint_export.placing import check_file_place, check_folder_place

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


@pytest.mark.parametrize("command", [name for name, rest in COMMANDS.items() if rest[-1] == "{}.png"])
def test_ending_of_a_picture_is_checked_first(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [argument.replace(".png", ".txt").format(tmp_path / "result") for argument in COMMANDS[command]]
    assert main([command, *arguments]) == 1
    assert "expected a name that ends in .png" in capsys.readouterr().err


@pytest.mark.parametrize("check", [check_file_place, check_folder_place])
def test_folder_that_belongs_to_others_is_refused(check: object, tmp_path: Path) -> None:
    assert callable(check)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    check(theirs / "deep" / "result", "--out")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # pytest's are closed to others
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    else:
        theirs.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=r"nothing may be written to .*theirs, expected a folder that") as caught:
            check(theirs / "deep" / "result", "--out")
    finally:
        if root:
            os.seteuid(0)
        else:
            theirs.chmod(0o755)
    assert caught.value.field == "out"
