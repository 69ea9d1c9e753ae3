"""Where and with what a measurement was taken."""

import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes.worker import ROOT
from labelmint_service.engine.graphics import describe_graphics
from labelmint_service.engine.processor import describe_processor

_PACKAGES = (
    *("labelmint", "cuda-bindings", "grpcio", "numpy", "nvidia-pytriton", "onnxruntime", "onnxruntime-gpu"),
    *("openvino", "protobuf", "pyarrow", "simplejpeg", "torch", "triton", "zstandard"),
)
_MADE = ("benchmarks/results", "README.md")
"""What benchmarks write themselves: a later one of the same command is no less of the commit for it."""


def describe_environment(command: str) -> dict[str, object]:
    """Command, time, commit, hardware, load and versions, ready for JSON.

    Args:
        command: What was called, from `describe_command`.
    """
    return {
        "command": command,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": describe_commit(),
        "hardware": {
            "processor": describe_processor(),
            "graphics": describe_graphics(),
            "memory_bytes": _memory_bytes(),
            "system": platform.platform(),
        },
        "load_average": load_average(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def describe_command(module: str, arguments: Sequence[str] | None) -> str:
    """The command line of a benchmark, as one types it in the repository.

    Args:
        module: Run as `python -m`.
        arguments: Without the program's name; None takes those of the process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", module, *(argument.replace(f"{ROOT}/", "") for argument in given)])


def load_average() -> list[float] | None:
    """Processes that wanted a core over the last 1, 5 and 15 minutes: more than this benchmark's own disturb it."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def describe_origin(environment: Mapping[str, Any]) -> str:  # Any: a document of JSON
    """Time and commit of what `describe_environment` gave, for readers."""
    commit = environment["commit"]
    if commit is None:
        return f"{environment['time']}, commit unknown"
    return f"{environment['time']}, commit {commit['id'][:12]}{' with changes' if commit['modified'] else ''}"


def describe_commit(root: Path = ROOT) -> dict[str, object] | None:
    """The commit that is checked out, and whether files that git knows differ from it; results do not count."""
    left_out = [f":(exclude){path}" for path in _MADE]
    try:
        identity = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *left_out)
        return {"id": identity, "modified": bool(changes)}
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked archive
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
