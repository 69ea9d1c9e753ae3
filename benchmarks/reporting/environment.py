"""Where and with what a measurement was taken."""

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

from benchmarks.processes.worker import ROOT
from labelmint_service.engine.graphics import describe_graphics
from labelmint_service.engine.processor import describe_processor

_PACKAGES = (
    *("labelmint", "cuda-bindings", "grpcio", "numpy", "onnxruntime", "onnxruntime-gpu", "protobuf", "simplejpeg"),
    *("torch", "triton", "zstandard"),
)


def describe_environment() -> dict[str, object]:
    """Time, commit, hardware, load and versions, ready for JSON."""
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": {
            "processor": describe_processor(),
            "graphics": describe_graphics(),
            "memory_bytes": _memory_bytes(),
            "system": platform.platform(),
        },
        "load_average": load_average(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def load_average() -> list[float] | None:
    """Processes that wanted a core over the last 1, 5 and 15 minutes: more than this benchmark's own disturb it."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def describe_origin(environment: Mapping[str, Any]) -> str:  # Any: a document of JSON
    """Time and commit of what `describe_environment` gave, for readers."""
    commit = environment["commit"]
    if commit is None:
        return f"{environment['time']}, commit unknown"
    return f"{environment['time']}, commit {commit['id'][:12]}{' with changes' if commit['modified'] else ''}"


def _commit() -> dict[str, object] | None:
    try:
        identity = _git("rev-parse", "HEAD")
        return {"id": identity, "modified": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked archive
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


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
