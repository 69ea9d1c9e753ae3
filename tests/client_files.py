"""Files of clients made for a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelmint_service.access.tokens import hash_token, make_token


class ClientFile:
    """A file of clients that a server reads, and the tokens that belong to it.

    Args:
        path: The file; JSON or TOML by its suffix.
        **clients: Limits and so on, by name; a client without an entry `token_sha256` gets a token.

    Attributes:
        path: The file.
        tokens: Of each client.
    """

    def __init__(self, path: Path, **clients: Mapping[str, Any]) -> None:  # Any: values of the file
        self.path = path
        self.tokens: dict[str, str] = {}
        self.write(**clients)

    def write(self, **clients: Mapping[str, Any]) -> None:  # Any: values of the file
        """Replaces the file, at once; a client that was there keeps its token."""
        entries = []
        for name, entry in clients.items():
            token = self.tokens.setdefault(name, make_token())
            entries.append({"name": name, "token_sha256": hash_token(token), **entry})
        self.replace(json.dumps({"client": entries}) if self.path.suffix == ".json" else _toml(entries))

    def replace(self, text: str) -> None:
        """Puts other content in the place of the file, at once."""
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.path)

    def of(self, name: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a call by a client."""
        return bearer(self.tokens[name])


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


def _toml(entries: list[dict[str, Any]]) -> str:  # Any: values of the file
    lines = []
    for entry in entries:
        lines.append("[[client]]")
        lines += [f"{key} = {value if key == 'expires' else json.dumps(value)}" for key, value in entry.items()]
    return "\n".join(lines) + "\n"
