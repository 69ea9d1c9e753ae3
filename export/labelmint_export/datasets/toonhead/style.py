"""The ToonHead style as dicebear ships it, parsed once per process."""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labelmint_export.errors import DatasetError

if TYPE_CHECKING:
    from dicebear import Style

STYLE_NAME = "toon-head"
CANVAS_SIZE = 768.0
"""Side of the square canvas that every coordinate of the style refers to."""


@functools.cache
def load_definition() -> Mapping[str, Any]:  # Any: a JSON document
    """Read the style's JSON definition.

    Returns:
        The parsed document; do not change it, every caller shares it.

    Raises:
        DatasetError: the style is not installed, or its canvas is not the one this package was written for.
    """
    resource = importlib.resources.files("dicebear_styles") / f"{STYLE_NAME}.json"
    try:
        definition: dict[str, Any] = json.loads(resource.read_text(encoding="utf-8"))
    except (OSError, ModuleNotFoundError) as error:
        raise DatasetError(
            f"cannot read the style {STYLE_NAME!r} ({error}); install dicebear-styles >= 10.6, "
            "for instance with pip install 'labelmint[train]'"
        ) from error
    canvas = definition["canvas"]
    if (canvas["width"], canvas["height"]) != (CANVAS_SIZE, CANVAS_SIZE):
        raise DatasetError(
            f"the canvas of {STYLE_NAME!r} is {canvas['width']} x {canvas['height']}, expected "
            f"{CANVAS_SIZE:g} x {CANVAS_SIZE:g}; install the dicebear-styles version of the lock file"
        )
    return definition


@functools.cache
def load_style() -> "Style":
    """Build dicebear's own object of the style (0.2 s), once per process.

    Raises:
        DatasetError: dicebear or the style is not installed.
    """
    try:
        from dicebear import Style  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise DatasetError(f"cannot draw avatars ({error}); run: pip install 'labelmint[train]'") from error
    return Style(dict(load_definition()))


@functools.cache
def variant_names(component: str) -> tuple[str, ...]:
    """List the variants of a component, in alphabetical order."""
    return tuple(sorted(load_definition()["components"][component]["variants"]))


@functools.cache
def color_values(name: str) -> tuple[str, ...]:
    """List the colours of one of the style's palettes ("skin", "hair", "clothes"), as "#rrggbb"."""
    return tuple(load_definition()["colors"][name]["values"])


@functools.cache
def component_offset(component: str) -> tuple[float, float]:
    """Say where the style puts the origin of a component, in canvas units (x, y)."""
    for element in load_definition()["canvas"]["elements"]:
        if element["name"] == component:
            numbers = element["attributes"]["transform"].removeprefix("translate(").removesuffix(")").split()
            return float(numbers[0]), float(numbers[1]) if len(numbers) > 1 else 0.0
    raise DatasetError(f"the style {STYLE_NAME!r} has no component {component!r}")
