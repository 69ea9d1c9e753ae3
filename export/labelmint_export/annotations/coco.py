"""Reading COCO's instance and keypoint files.

Areas are polygons (the union of an annotation's) and RLE, compressed or not; keypoints carry the names of their
category. Where all keypoints of a file are whole numbers they are indices of pixels, as in COCO itself, and lie at the
middle of these; fractions are places in the picture already.
"""

from pathlib import Path
from typing import Any

import numpy as np

from labelmint_export.annotations.drawing import Polygons, Shape
from labelmint_export.annotations.files import read_json_object
from labelmint_export.annotations.labels import NOTHING, LabelSource, PictureLabels, Point, Region
from labelmint_export.annotations.records import (
    check_num_points,
    check_size,
    count_of,
    list_of,
    number_of,
    objects_of,
    show,
    text_of,
)
from labelmint_export.annotations.rle import parse_coco
from labelmint_export.errors import AnnotationError

# Any: parsed JSON, checked here.


def read_coco(path: Path, keypoint_offset: float | None, skip: frozenset[str]) -> LabelSource:
    """Read a COCO file.

    Args:
        path: The JSON file.
        keypoint_offset: Added to keypoints; None: 0.5 if all of them are whole numbers, otherwise 0.
        skip: Names of categories whose areas are not looked at.

    Raises:
        AnnotationError: The file is malformed; the message names the annotation.
    """
    record = read_json_object(path)
    categories = _by_id(record, "categories", path)
    images = _by_id(record, "images", path)
    names = {key: text_of(entry, "name", f"{path}, category {key}") for key, entry in categories.items()}
    shown = {key: show(name) for key, name in names.items()}
    regions: dict[int, list[Region]] = {key: [] for key in images}
    points: dict[int, list[Point]] = {key: [] for key in images}
    used: set[int] = set()
    sizes: dict[int, tuple[int, int]] = {}  # of labelled images: Label Studio writes null for others
    for index, entry in enumerate(objects_of(record, "annotations", str(path))):
        where = f"{path}, annotation {entry.get('id', f'number {index}')}"
        image, category = _referred(entry, "image_id", images, where), _referred(entry, "category_id", names, where)
        where = f"{where} ({shown[category]})"
        used.add(category)
        if image not in sizes:
            sizes[image] = _size_of(images[image], f"{path}, image {image}")
        shape = NOTHING if names[category] in skip else _shape_of(entry, sizes[image], where)
        if shape is not None:
            regions[image].append(Region(names[category], shape, where))
        points[image] += _points_of(entry, categories[category], where)
    offset, note = _keypoint_offset(points, keypoint_offset)
    return LabelSource(
        path,
        "coco",
        tuple(
            PictureLabels(
                text_of(images[key], "file_name", f"{path}, image {key}"),
                path,
                sizes.get(key),
                tuple(regions[key]),
                tuple(Point(p.label, p.x + offset, p.y + offset, p.visible, p.where) for p in points[key]),
            )
            for key in images
        ),
        tuple(name for key, name in names.items() if key not in used),
        _skeleton(categories, path),
        note,
    )


def _by_id(record: dict[str, Any], key: str, path: Path) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for index, entry in enumerate(objects_of(record, key, str(path))):
        number = count_of(entry, "id", f"{path}, {key}[{index}]")
        if number in found:
            raise AnnotationError(f"{path} has id {number} twice in {key}", field="id")
        found[number] = entry
    return found


def _referred(entry: dict[str, Any], key: str, known: dict[int, Any], where: str) -> int:
    number = count_of(entry, key, where)
    if number not in known:
        raise AnnotationError(f"{where}: {key} is {number}, which the file does not describe", field=key)
    return number


def _size_of(image: dict[str, Any], where: str) -> tuple[int, int]:
    return check_size(count_of(image, "height", where), count_of(image, "width", where), where)


def _shape_of(entry: dict[str, Any], size: tuple[int, int], where: str) -> Shape | None:
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict):
        return parse_coco(segmentation, size, where)
    if segmentation is None or segmentation == []:
        if entry.get("keypoints"):
            return None
        raise AnnotationError(
            f"{where} has neither segmentation nor keypoints; a box is no mask, export the masks, or leave it out with "
            "--skip",
            field="segmentation",
        )
    rings = []
    for flat in list_of(entry, "segmentation", where):
        if not isinstance(flat, list) or len(flat) % 2:
            raise AnnotationError(
                f"{where}: a polygon is no list of x, y, x, y, ..., expected an even number of coordinates",
                field="segmentation",
            )
        check_num_points(len(flat) // 2, f"{where}: a polygon", at_least=3)
        numbers = [number_of(value, where, "segmentation") for value in flat]
        rings.append(np.array(numbers, np.float64).reshape(-1, 2))
    return Polygons(tuple(rings))


def _points_of(entry: dict[str, Any], category: dict[str, Any], where: str) -> list[Point]:
    """Keypoints are x, y, v: v 0 not there, 1 hidden, 2 visible."""
    if not entry.get("keypoints"):
        return []
    names = _keypoint_names(category, where)
    flat = list_of(entry, "keypoints", where)
    if len(flat) != 3 * len(names):
        raise AnnotationError(
            f"{where} has {len(flat)} numbers in keypoints, expected {3 * len(names)}: x, y, v for each of {names}",
            field="keypoints",
        )
    points = []
    for name, x, y, state in zip(names, flat[::3], flat[1::3], flat[2::3], strict=True):
        if isinstance(state, bool) or state not in (0, 1, 2):
            raise AnnotationError(f"{where}: the visibility of {name} is {state!r}, expected 0, 1 or 2", field="v")
        if state:
            place = (number_of(x, where, f"x of {name}"), number_of(y, where, f"y of {name}"))
            points.append(Point(name, *place, state == 2, where))
    return points


def _keypoint_names(category: dict[str, Any], where: str) -> list[str]:
    names = list_of(category, "keypoints", f"{where}, its category") if "keypoints" in category else []
    if not all(isinstance(name, str) and name for name in names) or not names:
        raise AnnotationError(
            f"{where} has keypoints, but its category lists no names of keypoints; add them to the category",
            field="keypoints",
        )
    return names


def _skeleton(categories: dict[int, dict[str, Any]], path: Path) -> tuple[tuple[str, str], ...]:
    """COCO counts the keypoints of a skeleton from 1."""
    pairs: list[tuple[str, str]] = []
    for key, category in categories.items():
        where = f"{path}, category {key}"
        if not category.get("skeleton"):
            continue
        listed, names = list_of(category, "skeleton", where), _keypoint_names(category, where)
        for pair in listed:
            if not isinstance(pair, list) or len(pair) != 2 or not all(_is_place(i, len(names)) for i in pair):
                raise AnnotationError(
                    f"{where}: skeleton holds {pair!r}, expected two numbers from 1 to {len(names)}", field="skeleton"
                )
            pairs.append((names[int(pair[0]) - 1], names[int(pair[1]) - 1]))
    return tuple(pairs)


def _is_place(value: object, count: int) -> bool:
    """Say whether a value is a whole number from 1 to count, which some programs write as 2.0."""
    return isinstance(value, int | float) and value in range(1, count + 1)


def _keypoint_offset(points: dict[int, list[Point]], given: float | None) -> tuple[float, tuple[str, ...]]:
    places = [value for several in points.values() for point in several for value in (point.x, point.y)]
    if given is not None or not places:
        return given or 0.0, ()
    if all(value.is_integer() for value in places):
        return 0.5, ("all keypoints are whole numbers: taken as indices of pixels, whose middle is at +0.5",)
    return 0.0, ()
