"""A standard output that is full, or that nobody reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "models": ["models"],
    "show": ["show", "tiny", "--json"],
    "health": ["health"],
}
WITHOUT_SERVER = {
    "help": ["--help"],
    "help of a command": ["generate", "--help"],
    "version": ["--version"],
    "demo": ["demo", "--out", os.devnull],
}
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def run(arguments: list[str], stdout: int, *, unbuffered: bool = False) -> tuple[int, str]:
    """Run the command in a process of its own; returns its status and what it complained of."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    command = [sys.executable, "-m", "labelmint_client", *arguments]
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, timeout=120, check=False
    )
    os.close(stdout)
    return done.returncode, done.stderr


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def unread() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@needs_full
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_full_output_is_one_line_and_an_error(address: str, arguments: list[str], unbuffered: bool) -> None:
    status, err = run([*arguments, "--address", address], full(), unbuffered=unbuffered)

    assert (status, err) == (
        1,
        "labelmint: cannot write to standard output: the disk is full: free some space\n",
    )


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_output_that_nobody_reads_ends_the_command_silently(
    address: str, arguments: list[str], unbuffered: bool
) -> None:
    assert run([*arguments, "--address", address], unread(), unbuffered=unbuffered) == (141, "")


@needs_full
@pytest.mark.parametrize("arguments", WITHOUT_SERVER.values(), ids=WITHOUT_SERVER)
def test_so_do_those_that_ask_no_server(arguments: list[str]) -> None:
    status, err = run(arguments, full())
    assert status == 1
    assert err.splitlines() == ["labelmint: cannot write to standard output: the disk is full: free some space"]
    assert run(arguments, unread()) == (141, "")


@needs_full
def test_data_set_is_whole_whatever_becomes_of_the_last_line(address: str, tmp_path: Path) -> None:
    arguments = ["generate", "--address", address, "--seed", "1", "--count", "3", "--no-progress", "--out"]
    status, err = run([*arguments, str(tmp_path / "full")], full())

    assert (status, len(err.splitlines())) == (1, 1)
    assert run([*arguments, str(tmp_path / "unread")], unread()) == (141, "")
    for name in ("full", "unread"):
        assert json.loads((tmp_path / name / "dataset.json").read_bytes())["num_samples"] == 3
