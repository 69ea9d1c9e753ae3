"""What is made once for all processes that share the suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Let the first process that asks make a file or folder; all others wait for it and read it.

    Args:
        factory: Of the session.
        name: Of the file or folder; the same in all processes.
        make: Makes it at a path that is not there yet.
    """
    own = factory.getbasetemp()
    # pytest-xdist gives each process a folder in the one of the run
    shared = own.parent if own.name.startswith("popen-") else own
    place = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not place.exists():
            unfinished = shared / f"{name}.unfinished"
            make(unfinished)
            unfinished.rename(place)
    return place
