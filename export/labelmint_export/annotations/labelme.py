"""Reading LabelMe's JSON files, one a picture.

Areas are polygons, rectangles, circles, masks, and lines if a thickness is given; points are keypoints. A shape of no
kind is a polygon, as it is to LabelMe.

Legend: h, w rows and columns of the picture that was drawn on.
"""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labelmint_export.annotations.drawing import Ellipse, Encoded, Polygons, Raster, Shape, Stroke, rectangle
from labelmint_export.annotations.files import read_json_object
from labelmint_export.annotations.labels import NOTHING, LabelSource, PictureLabels, Point, Region
from labelmint_export.annotations.records import check_size, count_of, number_of, objects_of, points_of, text_of
from labelmint_export.errors import AnnotationError

KINDS = "polygon, rectangle, oriented_rectangle, circle, mask, line, linestrip or point"

# Any: parsed JSON, checked here.


def read_labelme(path: Path, paths: list[Path], line_width: float | None, skip: frozenset[str]) -> LabelSource:
    """Read LabelMe files.

    Args:
        path: What the user gave, for the report.
        paths: The JSON files.
        line_width: Thickness of lines, pixels; None refuses them.
        skip: Labels whose shapes are not looked at.

    Raises:
        AnnotationError: A file is malformed; the message names file and shape.
    """
    return LabelSource(path, "labelme", tuple(_read_file(one, line_width, skip) for one in paths))


def _read_file(path: Path, line_width: float | None, skip: frozenset[str]) -> PictureLabels:
    record = read_json_object(path)
    regions: list[Region] = []
    points: list[Point] = []
    size = _size_of(record, path)
    if "shapes" not in record:
        raise AnnotationError(
            f"{path} holds {[key[:40] for key in record][:8]}, expected shapes as in LabelMe's files or annotations as "
            "in COCO's; give the labels alone",
            field="shapes",
        )
    for index, entry in enumerate(objects_of(record, "shapes", str(path))):
        where = f"{path}, shape {index}"
        label = text_of(entry, "label", where)
        kind = "polygon" if entry.get("shape_type") is None else text_of(entry, "shape_type", where)
        where = f"{where} ({kind} {label!r})"
        if kind == "point":
            ((x, y),) = points_of(entry.get("points"), where, at_least=1, at_most=1)
            points.append(Point(label, float(x), float(y), True, where))
        else:
            shape = NOTHING if label in skip else _shape_of(entry, kind, size, line_width, where)
            regions.append(Region(label, shape, where))
    picture = record.get("imagePath")
    name = picture if isinstance(picture, str) and picture else path.stem
    return PictureLabels(name, path, size, tuple(regions), tuple(points))


def _size_of(record: dict[str, Any], path: Path) -> tuple[int, int] | None:
    if record.get("imageHeight") is None and record.get("imageWidth") is None:
        return None
    height, width = count_of(record, "imageHeight", str(path)), count_of(record, "imageWidth", str(path))
    return check_size(height, width, str(path))


def _shape_of(
    entry: dict[str, Any], kind: str, size: tuple[int, int] | None, line_width: float | None, where: str
) -> Shape:
    given = entry.get("points")
    if kind == "polygon":
        return Polygons((points_of(given, where, at_least=3),))
    if kind == "oriented_rectangle" or (kind == "rectangle" and isinstance(given, list) and len(given) == 4):
        return Polygons((points_of(given, where, at_least=4, at_most=4),))
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points_of(given, where, at_least=2, at_most=2)
        return rectangle(x0, y0, x1, y1)
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points_of(given, where, at_least=2, at_most=2)
        radius = number_of(math.hypot(edge_x - x, edge_y - y), where, "radius")
        if not radius:
            raise AnnotationError(f"{where} has radius 0; draw it again", field="points")
        return Ellipse(float(x), float(y), radius, radius)
    if kind == "mask":
        return _mask_of(entry, size, where)
    if kind in ("line", "linestrip"):
        if line_width is None:
            raise AnnotationError(
                f"{where} is a line, which has no area; give its thickness with --line-width, or draw a polygon",
                field="line_width",
            )
        return Stroke(points_of(given, where, at_least=2), line_width)
    raise AnnotationError(
        f"{where} is a {kind}, expected {KINDS}; draw it anew, or leave it out with --skip", field="shape_type"
    )


@dataclass(frozen=True, slots=True)
class MaskImage(Encoded):
    """A mask as a PNG that was decoded before, so that it is known to be whole."""

    png: bytes
    """The file."""
    left: int
    """Column of the mask's first pixel in the picture that was drawn on."""
    top: int
    """Row of the mask's first pixel."""

    def decode(self) -> Raster:
        """Decode the mask."""
        with Image.open(io.BytesIO(self.png), formats=["PNG"]) as image:
            return Raster(np.asarray(image.convert("L")) > 0, self.left, self.top)


def _mask_of(entry: dict[str, Any], size: tuple[int, int] | None, where: str) -> MaskImage:
    """A mask is a PNG in base64 that fills the box of two points, the second one included.

    Both points of one that was moved lie between pixels; halves are rounded up, for `round` would change the size.
    """
    corners = np.floor(points_of(entry.get("points"), where, at_least=2, at_most=2) + 0.5).astype(int)
    (left, top), (right, bottom) = corners.tolist()
    box = (right - left + 1, bottom - top + 1)
    if box[0] > 0 and box[1] > 0:
        check_size(box[1], box[0], where)
    try:
        data = base64.b64decode(text_of(entry, "mask", where), validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            found = image.size
            if found != box or (size is not None and (found[1] > size[0] or found[0] > size[1])):
                raise AnnotationError(
                    f"{where}: the mask has {found[0]} x {found[1]} pixels, expected {box[0]} x {box[1]}, those of its "
                    "box in the picture",
                    field="mask",
                )
        shape = MaskImage(data, left, top)
        shape.decode()
    except (OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise AnnotationError(f"{where}: the mask is no PNG in base64 ({error})", field="mask") from error
    return shape
