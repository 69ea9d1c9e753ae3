"""Argument types for argparse: each refuses what makes no sense before anything is started."""

import argparse
import math
from pathlib import Path

from labelmint_export.errors import OutputError
from labelmint_export.placing import check_folder_place


def positive_int(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def natural_int(text: str) -> int:
    """A whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def share(text: str) -> float:
    """A number in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie in 0 to 1")
    return value


def distinct_seeds(text: str) -> tuple[int, ...]:
    """Comma-separated whole numbers from 0, each once."""
    return tuple(dict.fromkeys(natural_int(part) for part in text.split(",")))


def result_folder(text: str) -> Path:
    """A folder that results can be written to, there or to be made."""
    path = Path(text)
    try:
        check_folder_place(path, "it", filled=True)
    except OutputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path
