"""References to models: NAME, NAME@VERSION or NAME@ALIAS, as requests, settings and operators write them.

`@` is in no name, so that a server that knows no versions takes such a reference for an unknown model and refuses it; a
field of its own it would overlook, and serve another version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

DEFAULT = "default"
"""The alias that a name alone stands for. If no operator has set it, it is the same as LATEST."""
LATEST = "latest"
"""The newest version that is ready. No operator can set it."""

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
VERSION_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Of versions and aliases; neither can leave a folder."""
_DIGITS = re.compile(r"([0-9]+)")
_NUM_TOLD = 8


@dataclass(frozen=True, slots=True)
class Reference:
    """Which model is meant.

    Attributes:
        name: Name of the model.
        version: Version or alias; empty if none is named.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


def read_reference(text: str) -> Reference | None:
    """Take a reference apart.

    Returns:
        It; None if the text is none.
    """
    name, separator, version = text.partition("@")
    if not re.fullmatch(NAME_PATTERN, name):
        return None
    if separator and not re.fullmatch(VERSION_PATTERN, version):
        return None
    return Reference(name, version)


def tell_some(things: Iterable[object], *, separator: str = ", ") -> str:
    """Tell of the first few things, and how many more there are: an error has to fit the metadata of an answer.

    Returns:
        For example "a, b and 118 more"; empty if there are none.
    """
    told = [str(thing) for thing in things]
    more = f" and {len(told) - _NUM_TOLD} more" if len(told) > _NUM_TOLD else ""
    return separator.join(told[:_NUM_TOLD]) + more


def version_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Key that sorts versions from old to new: numbers inside them by value, so that 10 comes after 9."""

    def key(part: str) -> tuple[int, int, str]:
        digits = part.lstrip("0")
        return (1, len(digits), digits) if _DIGITS.fullmatch(part) else (0, 0, part)

    return tuple(key(part) for part in _DIGITS.split(version) if part)
