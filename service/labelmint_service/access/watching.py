"""Watching: whether files have changed since they were last looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_Stamp = tuple[tuple[int, ...] | None, ...]


class WatchedFiles:
    """Some files that belong together. Renamed, replaced, rewritten and vanished files count as changed.

    Links are followed, so that the switched links of a mounted secret are noticed too.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._seen: _Stamp | None = None

    @property
    def are_changed(self) -> bool:
        """Whether they differ from what they were when `note` was last called; one system call a file."""
        return self._seen != self.stamp()

    def stamp(self) -> _Stamp:
        """What tells the present content from an earlier one."""
        return tuple(_stamp(path) for path in self._paths)

    def note(self, stamp: _Stamp) -> None:
        """Count as seen what `stamp` gave.

        Args:
            stamp: Taken before the files were read: a change while reading is then noticed the next time.
        """
        self._seen = stamp


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # no file is a state like any other; who reads it says what is wrong
    # The time of change tells also that a file may be read now, or no more.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
