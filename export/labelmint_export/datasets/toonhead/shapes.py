"""The vector shapes of each component variant, read from the style's definition.

Shading and parts: the style shades with translucent black only. Such a fill belongs to whatever it lies on, so it is no
part of its component; an opaque outline around it still is. A translucent fill of any other colour (the closed mouths)
is a part of its own.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint_export.datasets.toonhead.paths import Polygon, flatten_ellipse, flatten_path, winding_numbers
from labelmint_export.datasets.toonhead.style import load_definition
from labelmint_export.errors import DatasetError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One filled element of a component, in the component's own coordinates."""

    polygons: tuple[Polygon, ...]
    """One polygon float64 [V, 2] per subpath."""
    clip: tuple[Polygon, ...]
    """The shape is only drawn inside these (empty: everywhere)."""
    is_circle: bool
    """Drawn by a `<circle>`."""
    is_shading: bool
    """Belongs to what it lies on."""
    is_evenodd: bool
    """Filled under the "evenodd" rule instead of "nonzero"."""

    def contains(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Say which points the shape covers.

        Args:
            points: float64 [N, 2], in the component's coordinates.

        Returns:
            bool [N].
        """
        inside = _is_inside(self.polygons, points, is_evenodd=self.is_evenodd)
        if self.clip:
            inside &= _is_inside(self.clip, points, is_evenodd=False)
        return inside

    @property
    def outline(self) -> tuple[Polygon, ...]:
        """The polygons that bound what is seen; of a clipped shape those of its clip."""
        return self.clip or self.polygons


def is_shading(attributes: Mapping[str, Any]) -> bool:  # Any: an attribute is text or a reference to a colour
    """Say whether an element's fill shades what lies below instead of being a part itself."""
    return attributes.get("fill") == "black" and float(attributes.get("fill-opacity", 1)) < 1


@functools.cache
def component_shapes(component: str, variant: str) -> tuple[Shape, ...]:
    """List the filled shapes of a component variant, in drawing order.

    Raises:
        DatasetError: the style has elements this module does not know.
    """
    elements = load_definition()["components"][component]["variants"][variant]["elements"]
    masks = {
        element["attributes"]["id"]: tuple(polygon for child in element["children"] for polygon in _polygons(child))
        for element in elements
        if element["name"] == "mask"
    }
    return tuple(shape for element in elements for shape in _shapes(element, {}, masks))


def _shapes(
    element: Mapping[str, Any],  # Any: a JSON document, here and below
    inherited: Mapping[str, Any],
    masks: Mapping[str, tuple[Polygon, ...]],
) -> Iterator[Shape]:
    attributes = {**inherited, **element.get("attributes", {})}
    if element["name"] == "mask":
        return
    if element["name"] == "g":
        for child in element["children"]:
            yield from _shapes(child, attributes, masks)
        return
    if attributes.get("fill", "none") == "none":
        return
    mask_id = attributes.get("mask", "").removeprefix("url(#").removesuffix(")")
    yield Shape(
        polygons=_polygons(element),
        clip=masks[mask_id] if mask_id else (),
        is_circle=element["name"] == "circle",
        is_shading=is_shading(attributes),
        is_evenodd=attributes.get("fill-rule") == "evenodd",
    )


def _polygons(element: Mapping[str, Any]) -> tuple[Polygon, ...]:
    attributes = element["attributes"]
    if element["name"] == "path":
        polygons = tuple(flatten_path(attributes["d"]))
    elif element["name"] in ("circle", "ellipse"):
        radius = attributes.get("r", "0")
        numbers = (attributes["cx"], attributes["cy"], attributes.get("rx", radius), attributes.get("ry", radius))
        polygons = (flatten_ellipse(*map(float, numbers)),)
    else:
        raise DatasetError(
            f"the toon-head style draws with <{element['name']}>, expected path, circle or ellipse; "
            "install the dicebear-styles version of the lock file"
        )
    return tuple(_transformed(polygon, attributes.get("transform")) for polygon in polygons)


def _transformed(polygon: Polygon, transform: str | None) -> Polygon:
    if transform is None:
        return polygon
    name, _, numbers = transform.removesuffix(")").partition("(")
    if name != "matrix":
        raise DatasetError(
            f"the toon-head style moves a shape by {transform!r}, expected matrix(a b c d e f); "
            "install the dicebear-styles version of the lock file"
        )
    a, b, c, d, e, f = map(float, numbers.replace(",", " ").split())
    moved: Polygon = polygon @ np.array([[a, b], [c, d]]) + np.array([e, f])
    return moved


def _is_inside(
    polygons: tuple[Polygon, ...], points: npt.NDArray[np.float64], *, is_evenodd: bool
) -> npt.NDArray[np.bool_]:
    winding = np.zeros(len(points), dtype=np.int64)
    for polygon in polygons:
        winding += winding_numbers(polygon, points)
    inside: npt.NDArray[np.bool_] = winding % 2 != 0 if is_evenodd else winding != 0
    return inside
