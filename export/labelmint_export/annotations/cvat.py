"""Reading CVAT's XML, "CVAT for images 1.1".

Areas are polygons, boxes and ellipses (turned ones too), masks, and polylines if a thickness is given; points and the
points of skeletons are keypoints. Entities and document types are refused before anything is expanded.

Legend: h, w rows and columns of the picture that was drawn on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from labelmint_export.annotations.drawing import Ellipse, Points, Polygons, Shape, Stroke, rectangle
from labelmint_export.annotations.files import check_file_size
from labelmint_export.annotations.labels import NOTHING, LabelSource, PictureLabels, Point, Region
from labelmint_export.annotations.records import check_num_points, check_size, parse_number, show
from labelmint_export.annotations.rle import Runs, check_runs, lengths_from_text
from labelmint_export.errors import AnnotationError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

KINDS = "polygon, box, ellipse, mask, polyline, points or skeleton"


def read_cvat(path: Path, line_width: float | None, skip: frozenset[str]) -> LabelSource:
    """Read a CVAT file.

    Args:
        path: The XML file.
        line_width: Thickness of polylines, pixels; None refuses them.
        skip: Labels whose shapes are not looked at.

    Raises:
        AnnotationError: The file is malformed or hostile; the message names picture and shape.
    """
    root = _parse(path)
    if root.tag != "annotations" or root.find("track") is not None:
        raise AnnotationError(
            f"{path} is no list of annotated images; export it from CVAT as 'CVAT for images 1.1'", field="annotations"
        )
    figures = {figure.get("label") for figure in root.iter("skeleton")}  # these are used, though no shape is called so
    lists = [labels for meta in root.findall("meta") for labels in meta.iter("labels")]
    listed = [name.text.strip() for labels in lists for name in labels.findall("label/name") if name.text]
    declared = [name for name in listed if name not in figures]
    pictures, num_tags = [], 0
    for image in root.findall("image"):
        pictures.append(_read_image(image, path, line_width, skip))
        num_tags += len(image.findall("tag"))
    notes = (f"{num_tags} tags of whole pictures were not read",) if num_tags else ()
    return LabelSource(path, "cvat", tuple(pictures), tuple(dict.fromkeys(declared)), notes=notes)


def _parse(path: Path) -> "Element":
    check_file_size(path)
    try:
        # In one piece: given a file, expat 2.5 reads a long attribute from its beginning for every 64 KiB of it.
        root: Element = defusedxml.ElementTree.fromstring(path.read_bytes(), forbid_dtd=True)
    except DefusedXmlException as error:
        raise AnnotationError(
            f"{path} declares entities or a document type, which no CVAT file does ({error}); it is not read",
            field=path.name,
        ) from error
    except (defusedxml.ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path} cannot be read as XML ({error}); export it anew", field=path.name) from error
    return root


def _read_image(image: "Element", path: Path, line_width: float | None, skip: frozenset[str]) -> PictureLabels:
    name = image.get("name", "")
    where = f"{path}, image {show(name)}"
    size = check_size(_count(image, "height", where), _count(image, "width", where), where)
    regions: list[Region] = []
    points: list[Point] = []
    for index, element in enumerate(image):
        if element.tag == "tag":
            continue
        label = element.get("label", "")
        place = f"{where}, shape {index} ({element.tag} {show(label)})"
        if element.tag == "points":
            points += _keypoints(element, label, place)
        elif element.tag == "skeleton":
            for joint in element.findall("points"):
                points += _keypoints(joint, joint.get("label", ""), f"{place}, {show(joint.get('label', ''))}")
        else:
            layer = int(_number(element, "z_order", place, default="0"))
            shape = NOTHING if label in skip else _shape_of(element, size, line_width, place)
            regions.append(Region(label, shape, place, layer))
    return PictureLabels(name, path, size, tuple(regions), tuple(points))


def _keypoints(element: "Element", label: str, where: str) -> list[Point]:
    if element.get("outside") == "1":
        return []
    places = _places(element, where, at_least=1)
    return [Point(label, float(x), float(y), element.get("occluded") != "1", where) for x, y in places]


def _shape_of(element: "Element", size: tuple[int, int], line_width: float | None, where: str) -> Shape:
    kind = element.tag
    if kind == "polygon":
        return Polygons((_places(element, where, at_least=3),))
    if kind == "box":
        left, top, right, bottom = (_number(element, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
        return rectangle(left, top, right, bottom, _number(element, "rotation", where, default="0"))
    if kind == "ellipse":
        x, y, radius_x, radius_y = (_number(element, name, where) for name in ("cx", "cy", "rx", "ry"))
        if not (radius_x > 0 and radius_y > 0):
            raise AnnotationError(f"{where} has radii {radius_x}, {radius_y}, expected more than 0", field="rx")
        return Ellipse(x, y, radius_x, radius_y, _number(element, "rotation", where, default="0"))
    if kind == "mask":
        return _mask_of(element, size, where)
    if kind == "polyline":
        if line_width is None:
            raise AnnotationError(
                f"{where} is a line, which has no area; give its thickness with --line-width, or draw a polygon",
                field="line_width",
            )
        return Stroke(_places(element, where, at_least=2), line_width)
    raise AnnotationError(
        f"{where} is a {kind}, expected {KINDS}; draw it anew, or leave it out with --skip", field=kind
    )


def _mask_of(element: "Element", size: tuple[int, int], where: str) -> Runs:
    """The runs go along the rows of a box in the picture."""
    left, top, width, height = (_count(element, name, where) for name in ("left", "top", "width", "height"))
    if left + width > size[1] or top + height > size[0]:
        raise AnnotationError(
            f"{where}: the box of the mask, {width} x {height} at ({left}, {top}), reaches out of the "
            f"{size[1]} x {size[0]} picture",
            field="mask",
        )
    lengths = lengths_from_text(element.get("rle", ""), where)
    return Runs(check_runs(lengths, height, width, where), height, width, left, top, by_column=False)


def _places(element: "Element", where: str, *, at_least: int) -> Points:
    text = element.get("points", "")
    pairs = [pair.split(",") for pair in text.split(";") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise AnnotationError(f"{where}: points is {text[:60]!r}, expected x,y;x,y;...", field="points")
    check_num_points(len(pairs), where, at_least=at_least)
    return np.array([[parse_number(value, where, "points") for value in pair] for pair in pairs], np.float64)


def _number(element: "Element", name: str, where: str, default: str = "") -> float:
    return parse_number(element.get(name, default), where, name)


def _count(element: "Element", name: str, where: str) -> int:
    value = _number(element, name, where)
    if value < 0 or not value.is_integer():
        raise AnnotationError(f"{where}: {name} is {value}, expected an integer of at least 0", field=name)
    return int(value)
