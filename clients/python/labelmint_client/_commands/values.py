"""Values of the command line; argparse reports what is refused."""

import argparse

from labelmint_client._checks import UINT32_MAX, UINT64_MAX

_MAX_TIMEOUT_S = 3600.0


def positive(text: str) -> int:
    """A whole number above 0."""
    return _whole(text, 1, UINT64_MAX)


def uint32(text: str) -> int:
    """A whole number below 2**32."""
    return _whole(text, 0, UINT32_MAX)


def uint64(text: str) -> int:
    """A whole number below 2**64."""
    return _whole(text, 0, UINT64_MAX)


def _whole(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text[:21]) <= high:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from {low} to {high}")
    return int(text)


def seconds(text: str) -> float:
    """A time above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MAX_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected seconds above 0, at most {_MAX_TIMEOUT_S:g}")
    return seconds


def class_area(text: str) -> tuple[str, float]:
    """A class and the area that it has to have."""
    name, separator, fraction = text.rpartition("=")
    try:
        area = float(fraction)
    except ValueError:
        area = -1.0
    if not separator or not name or not 0 < area <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected CLASS=FRACTION, for example hair=0.05")
    return name, area
