"""Lists: settings that are one, as a flag that repeats, a list of the file, or a text of a variable."""

from __future__ import annotations

import os

from pydantic import BeforeValidator


def _split_like_path(value: object) -> object:
    return tuple(value.split(os.pathsep)) if isinstance(value, str) else value


def _split_at_commas(value: object) -> object:
    given = value.split(",") if isinstance(value, str) else value
    if isinstance(given, list | tuple):
        return tuple(part for one in given for part in (one.split(",") if isinstance(one, str) else (one,)))
    return given


LIKE_PATH = BeforeValidator(_split_like_path)
"""A variable is separated like PATH."""
AT_COMMAS = BeforeValidator(_split_at_commas)
"""Variables and flags are separated by commas."""
