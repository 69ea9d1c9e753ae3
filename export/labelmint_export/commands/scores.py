"""Scores as JSON: it has no NaN, which is the IoU of a class that neither side holds."""

import math
from collections.abc import Mapping


def without_nan(scores: Mapping[str, object]) -> dict[str, object]:
    """Put None in the place of every NaN, in mappings inside of the mapping too."""
    return {
        name: without_nan(value)
        if isinstance(value, Mapping)
        else None
        if isinstance(value, float) and math.isnan(value)
        else value
        for name, value in scores.items()
    }
