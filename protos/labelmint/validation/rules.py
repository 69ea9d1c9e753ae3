"""Rules that any field may have; each raises ManifestError with the field's name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from labelmint.errors import ManifestError

MAX_TEXT = 4096
MAX_SIDE = 16384
MAX_WIDTH = 65536
SHA256 = re.compile(r"[0-9a-f]{64}")


def field_error(field: str, got: object, expected: str, advice: str = "rebuild the bundle") -> ManifestError:
    """What is raised for a field: what it is, what it should be, what to do."""
    shown = f"{got!r}" if not isinstance(got, str) or len(got) <= 200 else f"{got[:200]!r}..."
    # "taps (their number)" is for the reader; programs get the bare name.
    return ManifestError(
        f"manifest field {field} is {shown}, expected {expected}; {advice}", field=field.partition(" (")[0]
    )


def within(field: str, value: int, lowest: int, highest: int) -> None:
    """Check an integer against its bounds, both included."""
    if not lowest <= value <= highest:
        raise field_error(field, value, f"an integer in [{lowest}, {highest}]")


def finite_within(field: str, value: float, lowest: float, highest: float) -> None:
    """Check a number against its bounds, both included; NaN lies in none."""
    if not lowest <= value <= highest:  # false for NaN
        raise field_error(field, value, f"a number in [{lowest}, {highest}]")


def one_of(field: str, value: str | int, known: Collection[str | int]) -> None:
    """Check that a value is known."""
    if value not in known:
        raise field_error(field, value, f"one of {sorted(known, key=str)}", "upgrade labelmint or rebuild the bundle")


def matches(field: str, value: str, pattern: re.Pattern[str]) -> None:
    """Check the form of a text."""
    if not pattern.fullmatch(value):
        raise field_error(field, value, f"a text of the form {pattern.pattern}")


def matches_or_empty(field: str, value: str, pattern: re.Pattern[str]) -> None:
    """Check the form of a text that may be missing."""
    if value:
        matches(field, value, pattern)


def plain_text(field: str, value: str, *, shortest: int = 0, longest: int = MAX_TEXT) -> None:
    """Check a text for people: its length, and that it cannot drive a terminal."""
    has_control = any(unicodedata.category(character) == "Cc" and character not in "\n\t" for character in value)
    if not shortest <= len(value.strip()) <= len(value) <= longest or has_control:
        raise field_error(field, value, f"{shortest} to {longest} characters without control characters")


def unique_names(field: str, names: Sequence[str]) -> None:
    """Check names for people: none twice."""
    for position, name in enumerate(names):
        plain_text(f"{field}[{position}]", name, shortest=1, longest=128)
    unique(field, names)


def unique(field: str, values: Iterable[object]) -> None:
    """Check that no value occurs twice."""
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise field_error(field, value, "each value once")
        seen.add(value)
