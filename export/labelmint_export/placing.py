"""Folders that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def placed_whole(out: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of `out` if the block ends well, and else is removed.

    Args:
        out: Where the folder goes; what is there is replaced.
    """
    staging = out.with_name(f".{out.name}.building-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        _put_in_place(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, out: Path) -> None:
    if not out.exists():
        staging.replace(out)
        return
    old = out.with_name(f".{out.name}.replaced-{os.getpid()}")
    out.replace(old)
    try:
        staging.replace(out)
    except OSError:
        old.replace(out)
        raise
    shutil.rmtree(old)
