"""The commands a newcomer types first: listed, and clear about what is missing."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Without the variables of an outer `make test`, which would steer this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def targets() -> list[str]:
    return re.findall(r"^([a-z-]+):[^\n]*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_help_is_the_default_and_lists_every_command() -> None:
    done = make()
    assert done.returncode == 0
    listed = re.findall(r"^  make ([a-z-]+) ", done.stdout, flags=re.MULTILINE)
    assert listed == targets()
    assert {"demo", "test", "serve", "bench", "lint", "protos", "clean"} <= set(listed)


@pytest.mark.parametrize("target", ["demo", "serve", "test", "bench", "lint", "protos", "clean"])
def test_command_can_be_planned(target: str, tmp_path: Path) -> None:
    done = make("--dry-run", target, f"DEMO_VENV={tmp_path}/demo", f"DEV_VENV={tmp_path}/dev")
    assert done.returncode == 0, done.stderr


def test_demo_and_server_install_no_torch(tmp_path: Path) -> None:
    planned = make("--dry-run", "demo", f"DEMO_VENV={tmp_path}/demo").stdout
    assert '--editable ".[service,cpu,cli]"' in planned


def test_torch_index_reaches_pip(tmp_path: Path) -> None:
    planned = make("--dry-run", "lint", f"DEV_VENV={tmp_path}/dev", "TORCH_INDEX=https://example.org/cpu").stdout
    assert "--extra-index-url https://example.org/cpu" in planned
    assert "--constraint requirements/tested.txt" in planned


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 1", "is not Python 3.11 to 3.13"),
        ('case "$*" in *ensurepip*) exit 1;; esac', "cannot make virtual environments"),
    ],
    ids=["other version", "no venv"],
)
def test_missing_python_parts_name_the_packages_to_install(tmp_path: Path, text: str, message: str) -> None:
    done = make("lint", f"DEV_VENV={tmp_path}/dev", script(tmp_path / "python", text))
    assert done.returncode != 0
    assert message in done.stderr
    assert "apt install make python3 python3-venv" in done.stderr
    assert not (tmp_path / "dev").exists()


def test_missing_python_names_the_packages_to_install(tmp_path: Path) -> None:
    done = make("lint", f"DEV_VENV={tmp_path}/dev", "PYTHON=")
    assert done.returncode != 0
    assert "apt install make python3 python3-venv" in done.stderr
