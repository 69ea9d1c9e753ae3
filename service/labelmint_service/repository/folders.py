"""What lies in the folder of a model repository. Nothing is opened here but model.json."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labelmint_service.errors import VersionFolderError
from labelmint_service.models.references import DEFAULT, LATEST, NAME_PATTERN, VERSION_PATTERN, version_order
from labelmint_service.repository.model_file import ModelFile, read_model_file

_MAX_FILES = 10_000
"""Of a version; the rest is not looked at for changes."""

Stamp = tuple[tuple[str, int, int, int, int], ...]
"""Of each file: path, inode, size, time of the last change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFolder:
    """A version that lies in the repository.

    Attributes:
        path: Its folder.
        stamp: Differs once a file of it has changed.
    """

    path: Path
    stamp: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model that lies in the repository.

    Attributes:
        path: Its folder.
        versions: By name, newest first.
        file: Its model.json; None if that cannot be used.
        problem: Why it cannot.
    """

    path: Path
    versions: dict[str, VersionFolder]
    file: ModelFile | None
    problem: str


def scan(root: Path) -> dict[str, ModelFolder]:
    """Look at the whole repository. It blocks.

    Names that begin with a dot are left out: a copy is not finished while it has one.

    Returns:
        Models by name.

    Raises:
        VersionFolderError: A folder cannot be listed. Nothing is known then, not even that something has gone.
    """
    return {path.name: _scan_model(path) for path in _folders(root, NAME_PATTERN)}


def _scan_model(path: Path) -> ModelFolder:
    folders = [folder for folder in _folders(path, VERSION_PATTERN) if folder.name not in {DEFAULT, LATEST}]
    folders.sort(key=lambda folder: version_order(folder.name), reverse=True)
    versions = {folder.name: VersionFolder(path=folder, stamp=_stamp(folder)) for folder in folders}
    try:
        file = read_model_file(path)
    except VersionFolderError as error:
        return ModelFolder(path=path, versions=versions, file=None, problem=str(error))
    return ModelFolder(path=path, versions=versions, file=file, problem="")


def _folders(path: Path, pattern: str) -> list[Path]:
    """Folders in a folder whose names are of a pattern, and links to folders."""
    try:
        with os.scandir(path) as entries:
            return sorted(Path(one.path) for one in entries if re.fullmatch(pattern, one.name) and one.is_dir())
    except OSError as error:
        raise VersionFolderError(
            f"folder {path} of the model repository cannot be listed ({error.strerror}); give a folder that this "
            "process may read",
            field="model_repository",
        ) from error


def _stamp(folder: Path) -> Stamp:
    found: list[tuple[str, int, int, int, int]] = []
    for path in _files(folder):
        try:
            status = path.stat()
        except OSError:
            continue  # it has gone meanwhile, which is a change that the next look sees
        found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        if len(found) >= _MAX_FILES:
            break
    return tuple(sorted(found))


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)
