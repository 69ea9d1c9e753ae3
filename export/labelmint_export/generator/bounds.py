"""Checks of numbers in the descriptions of backbones, which come from files: of any type, until they are checked."""

import math
from collections.abc import Mapping, Sequence

from labelmint_export.errors import GeneratorError


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
