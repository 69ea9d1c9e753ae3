"""Checks of settings that every stage makes of its own."""

import math

from labelmint_export.errors import ExportError, TrainingError


def require_at_least(settings: object, minimum: float, *names: str, error: type[ExportError] = TrainingError) -> None:
    """Refuse a field that is smaller than the minimum, or no finite number.

    Raises:
        ExportError: Of the given class; `field` names the setting.
    """
    for name in names:
        value = getattr(settings, name)
        if not minimum <= value < math.inf:
            raise error(f"{name} is {value}, expected at least {minimum:g}", field=name)


def require_positive(settings: object, *names: str) -> None:
    """Refuse a field that is not a finite number above 0.

    Raises:
        TrainingError: `field` names the setting.
    """
    for name in names:
        value = getattr(settings, name)
        if not 0 < value < math.inf:
            raise TrainingError(f"{name} is {value}, expected more than 0", field=name)


def require_between(settings: object, low: float, high: float, *names: str) -> None:
    """Refuse a field that is not between bounds.

    Raises:
        TrainingError: `field` names the setting.
    """
    for name in names:
        value = getattr(settings, name)
        if not low <= value <= high:
            raise TrainingError(f"{name} is {value}, expected {low:g} to {high:g}", field=name)


def require_seed(seed: int) -> None:
    """Refuse a seed that not every random generator takes.

    Raises:
        TrainingError: It is out of range.
    """
    if not 0 <= seed < 2**64:
        raise TrainingError(f"seed is {seed}, expected 0 to 2**64 - 1; choose one in that range", field="seed")
