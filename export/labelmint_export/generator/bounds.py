"""Checks of numbers in the descriptions of backbones, and in settings."""

import math
from collections.abc import Mapping, Sequence

from labelmint_export.errors import GeneratorError, TrainingError


def check_counts(owner: object, bounds: Mapping[str, tuple[int, int]], prefix: str = "") -> None:
    """Check that fields are whole numbers between bounds.

    Raises:
        GeneratorError: One is not.
    """
    for name, (low, high) in bounds.items():
        value = getattr(owner, name)
        if type(value) is not int or not low <= value <= high:
            raise GeneratorError(
                f"{prefix}{name} is {value!r}, expected a whole number from {low} to {high}", field=prefix + name
            )


def check_positive(owner: object, names: Sequence[str], prefix: str = "") -> None:
    """Check that fields are finite numbers above zero.

    Raises:
        GeneratorError: One is not.
    """
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
            raise GeneratorError(f"{prefix}{name} is {value!r}, expected a finite number above 0", field=prefix + name)


def check_between(owner: object, low: float, high: float, *names: str) -> None:
    """Check that settings are between bounds.

    Raises:
        TrainingError: One is not.
    """
    for name in names:
        value = getattr(owner, name)
        if not low <= value <= high:
            raise TrainingError(f"{name} is {value}, expected {low:g} to {high:g}", field=name)


def check_seed(seed: int) -> None:
    """Check that a seed is one that every random generator takes.

    Raises:
        TrainingError: It is not.
    """
    if not 0 <= seed < 2**64:
        raise TrainingError(f"seed is {seed}, expected 0 to 2**64 - 1; choose one in that range", field="seed")
