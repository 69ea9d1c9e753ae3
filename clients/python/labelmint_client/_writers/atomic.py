"""Files that are whole or absent, and errors of the file system in words."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from labelmint_client._errors import OutputError

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EACCES: "permission is denied: choose a folder you may write to",
    errno.EPERM: "permission is denied: choose a folder you may write to",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another folder",
    errno.EEXIST: "a file stands where a folder is needed: choose another folder",
    errno.EISDIR: "a folder stands where a file is needed: choose another folder",
    errno.ENAMETOOLONG: "the path is too long: choose another folder",
}

_DRAFT = re.compile(r"\.(.+)\.\d+\.tmp")
"""Names of `_draft_name`."""


@contextmanager
def clear_errors(path: Path, action: str) -> Iterator[None]:
    """Turn errors of the file system into ones that say what to do.

    Args:
        path: What is worked on.
        action: The work, as in "cannot write".

    Raises:
        OutputError: The work failed.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot {action} {path}: {advice(error)}", field="out") from error


def advice(error: OSError) -> str:
    """Say what was in the way, and what to do about it.

    Args:
        error: Of the file system.
    """
    return _ADVICE.get(error.errno or 0, error.strerror or str(error))


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its name only when it is whole.

    Args:
        path: Its name.

    Raises:
        OutputError: It cannot be written; nothing of it is left.
    """
    draft = path.with_name(_draft_name(path.name))
    with clear_errors(path, "write"):
        try:
            with draft.open("wb") as file:
                yield file
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def final_name(name: str) -> str:
    """Tell which name a file takes when it is whole.

    Args:
        name: Its name now, or that of its draft.
    """
    draft = _DRAFT.fullmatch(name)
    return draft[1] if draft else name


def remove_drafts(folder: Path) -> None:
    """Remove what a killed process left of files that it was writing.

    Args:
        folder: Where `atomic_file` wrote; may be missing.

    Raises:
        OutputError: A draft cannot be removed.
    """
    for draft in folder.glob(".*.tmp"):
        if final_name(draft.name) != draft.name:
            with clear_errors(draft, "remove"):
                draft.unlink(missing_ok=True)


def _draft_name(name: str) -> str:
    return f".{name}.{os.getpid()}.tmp"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file under its name, or leave nothing.

    Args:
        path: Its name.
        data: Its content.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_file(path) as file:
        file.write(data)
