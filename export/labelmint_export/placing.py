"""Where results go: places that are checked before the work, files and folders that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors

from labelmint_export.errors import OutputError


def check_file_place(path: Path, option: str, ending: str = "") -> None:
    """Check that a file can be written to a place, before the work whose result it will hold.

    Args:
        path: Where the file goes; one that is there will be replaced.
        option: What the place is called on the command line, such as --out.
        ending: What the name must end in; "" for anything.

    Raises:
        OutputError: It is a folder, a device or a pipe, its name ends otherwise, a part of its path is a file, or
            nothing may be written there.
    """
    if _is(path.is_dir):
        raise _output_error(path, option, "which is a folder", "the name of a file", "add one")
    if _is(path.exists) and not _is(path.is_file):
        raise _output_error(
            path, option, "which is a device or a pipe", "a file, which is replaced", "give another name"
        )
    if ending and path.suffix != ending:
        raise OutputError(f"{option} is {path}, expected a name that ends in {ending}; rename it", field=_field(option))
    _check_parents(path, option)


def check_folder_place(path: Path, option: str, *, filled: bool = False) -> None:
    """Check that a folder can be written to a place, before the work whose result it will hold.

    Args:
        path: Where the folder goes.
        option: What the place is called on the command line, such as --out.
        filled: Whether a folder that is there gets new files; else it is replaced as a whole.

    Raises:
        OutputError: It is a file, a part of its path is one, nothing may be written there, or it cannot be replaced.
    """
    if _is(path.exists) and not _is(path.is_dir):
        raise _output_error(path, option, "which is a file", "a folder", "give another name")
    if filled and _is(path.exists):
        _check_writing(path, path, option)
    else:
        _check_parents(path, option)
        _check_replacing(path, option)


def _check_replacing(path: Path, option: str) -> None:
    """Refuse a folder whose name cannot go to another one."""
    if not _is(path.exists):
        return
    where = "where something is mounted" if path.is_mount() else ""
    if Path.cwd().is_relative_to(path.resolve()):  # whoever stands in it would stand in a removed one
        where = "which holds the folder that this runs in"
    if where:
        raise _output_error(path, option, where, "a folder that can be replaced as a whole", "give a new one in it")


def _check_parents(path: Path, option: str) -> None:
    nearest = next((parent for parent in path.absolute().parents if _is(parent.exists)), path)
    if not _is(nearest.is_dir):
        raise _output_error(path, option, f"but {nearest} is a file", "folders above it", "give another path")
    _check_writing(nearest, path, option)


def _check_writing(folder: Path, path: Path, option: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise _output_error(
            path, option, f"but nothing may be written to {folder}", "a folder that is yours", "give another path"
        )


def _is(question: Callable[[], bool]) -> bool:
    """Ask something about a path; what lies in a folder that may not be looked into is taken as missing."""
    with contextlib.suppress(PermissionError):
        return question()
    return False


def _output_error(path: Path, option: str, got: str, expected: str, advice: str) -> OutputError:
    return OutputError(f"{option} is {path}, {got}, expected {expected}; {advice}", field=_field(option))


def _field(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


@contextlib.contextmanager
def file_placed_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` if the block ends well, and else is removed.

    Args:
        path: Where the file goes; what is there is replaced, and the folder is made if there is none.

    Raises:
        OutputError: It cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, safetensors.SafetensorError) as error:
        raise OutputError(
            f"{path} cannot be written ({error}); see that there is space and that the folder is yours", field="out"
        ) from error


@contextlib.contextmanager
def placed_whole(out: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of `out` if the block ends well, and else is removed.

    Args:
        out: Where the folder goes; what is there is replaced. A link stays, and leads to the folder.
    """
    out = out.resolve()
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
    except BaseException:  # interrupts too
        old.replace(out)
        raise
    shutil.rmtree(old)
