"""model.json, in the folder of a model: its aliases and the limit of its memory.

{"aliases": {"default": "2", "stable": "1"}, "memory_limit_bytes": 2000000000}
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from labelmint_service.errors import RepositoryStateError, VersionFolderError
from labelmint_service.models.references import LATEST, VERSION_PATTERN

NAME = "model.json"
_UNFINISHED = ".model.json.unfinished"
_MAX_BYTES = 65536
_Name = Annotated[str, StringConstraints(pattern=f"^{VERSION_PATTERN}$")]


class ModelFile(BaseModel):
    """What an operator says of a model.

    Attributes:
        aliases: Version by alias. `default` is what the name alone asks for.
        memory_limit_bytes: Most that the process may grow by for one version; None for no limit but the server's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    aliases: dict[_Name, _Name] = Field(default_factory=dict)
    memory_limit_bytes: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_latest(self) -> Self:
        if LATEST in self.aliases:
            raise ValueError(f"{LATEST!r} is always the newest version; choose another name")
        return self


def read_model_file(folder: Path) -> ModelFile:
    """Read the model.json of a model's folder; one that is missing says nothing.

    Raises:
        VersionFolderError: It cannot be read, or something in it is wrong.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return ModelFile()
    except OSError as error:
        raise _unusable(path, error.strerror or "the system does not say why") from error
    if len(text) > _MAX_BYTES:
        raise _unusable(path, f"it has more than {_MAX_BYTES} bytes")
    try:
        return ModelFile.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise _unusable(path, f"{place}: {problem['msg']}" if place else problem["msg"]) from error


def write_model_file(folder: Path, content: ModelFile) -> None:
    """Write a model.json; whoever reads it meanwhile sees the old one or the new one.

    Raises:
        RepositoryStateError: The folder cannot be written.
    """
    unfinished = folder / _UNFINISHED
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content.model_dump(exclude_none=True), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / NAME)
    except OSError as error:
        with contextlib.suppress(OSError):  # there may be none
            unfinished.unlink()
        raise RepositoryStateError(
            f"{folder / NAME} cannot be written ({error.strerror}), so that a restart would forget the alias; let the "
            "server write there, or edit the file where the folder comes from",
            field="alias",
        ) from error


def _unusable(path: Path, problem: str) -> VersionFolderError:
    return VersionFolderError(
        f'{path} cannot be used ({problem}), expected JSON such as {{"aliases": {{"default": "2"}}}}; correct it',
        field="model_repository",
    )
