"""Watched files: whatever may change what reading them gives counts as a change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labelmint_service.access.watching import WatchedFiles


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("same")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("more of it"),
        lambda path: path.chmod(0o600),
        lambda path: path.unlink(),
        replace,
    ],
    ids=["rewritten", "other rights", "removed", "replaced"],
)
def test_change_of_a_file_is_seen(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    path.write_text("same")
    path.chmod(0o644)
    watched = WatchedFiles([path])
    watched.note(watched.stamp())
    assert not watched.are_changed
    change(path)

    assert watched.are_changed
