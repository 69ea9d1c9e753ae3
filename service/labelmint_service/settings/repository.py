"""Settings of the model repository and of the admin service; part of the server's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode

from labelmint_service.models.references import NAME_PATTERN, VERSION_PATTERN
from labelmint_service.settings.lists import AT_COMMAS

_Model = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}(@{VERSION_PATTERN})?$")]


class RepositorySettings(BaseSettings):
    """Which models are served, if not single bundles, and who may change that."""

    model_repository: Path | None = Field(
        default=None,
        description="Folder of models and their versions, NAME/VERSION/manifest.json, instead of bundles.",
    )
    repository_mode: Literal["poll", "explicit"] = Field(
        default="poll",
        description="poll: serve what lies in the repository, looked at now and then; explicit: what load names and "
        "the admin service is asked for.",
    )
    poll_interval_s: float = Field(
        default=10.0,
        gt=0.0,
        le=86400.0,
        description="Time between looks at the repository.",
    )
    load: Annotated[tuple[_Model, ...], NoDecode, AT_COMMAS] = Field(
        default=(),
        description="NAME or NAME@VERSION of the repository to load at the start, in mode explicit. As a flag "
        "repeatable, as a variable separated by commas.",
    )
    unload_limit_s: float = Field(
        default=300.0,
        ge=0.0,
        le=86400.0,
        description="Time that the streams of a version get to end when it is unloaded.",
    )
    admin_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address of the admin service. Another than loopback needs TLS and tokens.",
    )
    admin_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of the admin service, which loads and unloads versions; 0 for any. Without it there is none.",
    )

    @model_validator(mode="after")
    def _check_repository_is_there(self) -> Self:
        """What makes sense with a repository alone."""
        if self.model_repository is None:
            for name, is_set in (("load", bool(self.load)), ("admin_port", self.admin_port is not None)):
                if is_set:
                    raise PydanticCustomError(
                        name, f"{name} is set without model_repository, so that there is nothing to load; give that too"
                    )
        elif self.load and self.repository_mode == "poll":
            raise PydanticCustomError(
                "load",
                "load is set, but repository_mode is 'poll', which loads all there is; leave it out or choose "
                "'explicit'",
            )
        return self
