"""Checked access to parsed label files: every error names the place, what came and what was expected."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from labelmint_export.annotations.drawing import Points
from labelmint_export.annotations.files import MAX_PICTURE_PIXELS
from labelmint_export.errors import AnnotationError

MAX_COORDINATE = 1e6

# Any: parsed JSON, checked here.


def text_of(record: Mapping[str, Any], key: str, where: str) -> str:
    """Get a text that is not empty."""
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise AnnotationError(f"{where}: {key} is {show(value)}, expected a text", field=key)
    return value


def count_of(record: Mapping[str, Any], key: str, where: str) -> int:
    """Get an integer of at least 0."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise AnnotationError(f"{where}: {key} is {show(value)}, expected an integer of at least 0", field=key)
    return value


def list_of(record: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """Get a list."""
    value = record.get(key)
    if not isinstance(value, list):
        raise AnnotationError(f"{where}: {key} is {show(value)}, expected a list", field=key)
    return value


def objects_of(record: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """Get a list of JSON objects."""
    for index, entry in enumerate(value := list_of(record, key, where)):
        if not isinstance(entry, dict):
            raise AnnotationError(f"{where}: {key}[{index}] is {show(entry)}, expected an object", field=key)
    return value


def number_of(value: object, where: str, name: str) -> float:
    """Check a coordinate or length of a picture.

    Raises:
        AnnotationError: It is no number, not finite, or larger than any picture.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnnotationError(f"{where}: {name} is {show(value)}, expected a number", field=name)
    if not abs(value) <= MAX_COORDINATE:  # so neither are nan, inf and integers beyond every float
        raise AnnotationError(
            f"{where}: {name} is {show(value)}, expected a finite number of pixels, at most {MAX_COORDINATE:g}",
            field=name,
        )
    return float(value)


def parse_number(text: str, where: str, name: str) -> float:
    """Check a coordinate or length that is written as text; see `number_of`."""
    try:
        value = float(text)
    except ValueError as error:
        raise AnnotationError(f"{where}: {name} is {show(text)}, expected a number", field=name) from error
    return number_of(value, where, name)


def check_size(height: int, width: int, where: str) -> tuple[int, int]:
    """Refuse the size of a picture that no reader would take.

    Returns:
        Height and width.
    """
    if not (height > 0 and width > 0 and height * width <= MAX_PICTURE_PIXELS):
        raise AnnotationError(
            f"{where}: the picture is said to have {width} x {height} pixels, expected 1 to {MAX_PICTURE_PIXELS}",
            field="size",
        )
    return height, width


def points_of(value: object, where: str, *, at_least: int, at_most: int | None = None) -> Points:
    """Check a list of [x, y].

    Returns:
        float64 [P, 2].
    """
    if not isinstance(value, list):
        raise AnnotationError(f"{where}: points is {show(value)}, expected a list of [x, y]", field="points")
    check_num_points(len(value), where, at_least=at_least, at_most=at_most)
    numbers = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise AnnotationError(f"{where}: a point is {show(pair)}, expected [x, y]", field="points")
        numbers.append([number_of(coordinate, where, "points") for coordinate in pair])
    return np.array(numbers, np.float64).reshape(-1, 2)


def check_num_points(count: int, where: str, *, at_least: int, at_most: int | None = None) -> None:
    """Refuse a shape of too few or too many points."""
    if count < at_least or (at_most is not None and count > at_most):
        wanted = f"{at_least}" if at_most == at_least else f"at least {at_least}"
        raise AnnotationError(f"{where} has {count} points, expected {wanted}; draw it again", field="points")


def show(value: object) -> str:
    """Write a value as messages have it, a long one cut: each of the shapes of a file may keep its own copy."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
