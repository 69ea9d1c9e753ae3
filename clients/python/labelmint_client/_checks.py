"""Checks of single arguments."""

import operator
from typing import SupportsIndex

from labelmint_client._errors import InvalidArgumentError

# The largest numbers that protobuf's types hold.
UINT64_MAX = 2**64 - 1
UINT32_MAX = 2**32 - 1


def integer(field: str, value: SupportsIndex, low: int, high: int) -> int:
    """Check a whole number.

    Raises:
        InvalidArgumentError: It is none, or lies outside low to high, both included.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{field} is {value!r}, expected a whole number", field=field) from None
    if not low <= whole <= high:
        raise InvalidArgumentError(f"{field} is {whole}, expected {low} to {high}", field=field)
    return whole


def number(field: str, value: float) -> float:
    """Check a number.

    Raises:
        InvalidArgumentError: It is none.
    """
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        raise InvalidArgumentError(f"{field} is {value!r}, expected a number", field=field) from None


def text(field: str, value: object) -> str:
    """Check a text.

    Raises:
        InvalidArgumentError: It is none, or cannot be sent.
    """
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{field} is {value!r}, expected a text", field=field)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{field} holds a character that cannot be sent: {error}", field=field) from error
    return value


def optional_size(field: str, num_bytes: SupportsIndex | None) -> int | None:
    """Check a number of bytes that may be left out.

    Raises:
        InvalidArgumentError: It is no whole number, or below 1.
    """
    return None if num_bytes is None else integer(field, num_bytes, 1, 2**40)
