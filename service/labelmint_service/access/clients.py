"""The file of clients: who may call, with which token, and how much.

[[client]]
name = "training"
token_sha256 = "9f86d0..."            # or a list: an old and a new token while one replaces the other
expires = 2027-01-01T00:00:00Z        # this and what follows may be left out
models = ["toonhead"]
max_streams = 4
samples_per_second = 200
samples_per_day = 1_000_000
priority = 0
admin = false
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from labelmint_service.errors import AccessFileError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"

_MAX_FILE_BYTES = 16 * 2**20


class Client(BaseModel):
    """One client of the server. Its limits hold for all its streams together, whichever of its tokens opened them.

    Attributes:
        name: For logs, metrics and the counts of a day.
        token_sha256: Hashes of its tokens, 64 hexadecimal digits each.
        expires: When its tokens cease to be valid; None for never.
        models: Models it sees; None for all.
        max_streams: Streams at a time; None for no limit but the server's.
        samples_per_second: Rate at which samples are handed to the engine for it; None for no limit.
        samples_per_day: The same a day (UTC); None for no limit.
        priority: Larger goes first.
        admin: Whether it may use the admin service too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN)
    token_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = Field(min_length=1)
    expires: AwareDatetime | None = None
    models: frozenset[Annotated[str, Field(min_length=1)]] | None = None
    max_streams: int | None = Field(default=None, ge=1, le=100_000, strict=True)
    samples_per_second: float | None = Field(default=None, ge=0.001, le=1_000_000, allow_inf_nan=False, strict=True)
    samples_per_day: int | None = Field(default=None, ge=1, le=2**53, strict=True)
    priority: int = Field(default=0, ge=-100, le=100, strict=True)
    admin: bool = Field(default=False, strict=True)

    @field_validator("token_sha256", mode="before")
    @classmethod
    def _list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    def is_expired(self, now: datetime) -> bool:
        """Whether its tokens are no longer valid.

        Args:
            now: With a time zone.
        """
        return self.expires is not None and now >= self.expires


class _ClientFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    client: tuple[Client, ...] = Field(min_length=1)


def read_clients(path: Path) -> tuple[Client, ...]:
    """Read a file of clients: TOML, or JSON with the suffix .json.

    Raises:
        AccessFileError: It cannot be read, or something in it is wrong. What stands where names and hashes belong
            is not repeated: it may be a token.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
        if len(text) > _MAX_FILE_BYTES:
            raise ValueError(f"more than {_MAX_FILE_BYTES} bytes")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text.decode())
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, TOMLDecodeError are ValueErrors
        # The errors of the parsers name a place; they can quote the text there, which may be a token in the wrong file.
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _unusable(path, f"is not {'JSON' if path.suffix == '.json' else 'TOML'}{place}") from None
    try:
        clients = _ClientFile.model_validate(content).client
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        raise _unusable(path, f"has a wrong {_place(problem['loc'])}: {problem['msg']}") from None
    _check_unique(path, "name", (client.name for client in clients))
    _check_unique(path, "token_sha256", (digest for client in clients for digest in client.token_sha256))
    return clients


def _check_unique(path: Path, field: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise _unusable(path, f"has the {field} {value!r} twice, expected it once")
        seen.add(value)


def _place(location: Iterable[Any]) -> str:  # Any: names and numbers
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".") or "content"


def _unusable(path: Path, problem: str) -> AccessFileError:
    return AccessFileError(
        f"the file of clients {path} {problem}; correct it, `labelmint-serve new-token NAME` prints an entry",
        field="tokens",
    )
