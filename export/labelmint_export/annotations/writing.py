"""Writing an annotation folder; `folder` says what it holds.

Legend: N pictures.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from labelmint_export.annotations.folder import AnnotatedSet
from labelmint_export.errors import AnnotationError
from labelmint_export.placing import check_folder_place, placed_whole
from labelmint_export.stored import write_json, write_tensors

LABELME_VERSION = "5.5.0"
MAX_NAME_BYTES = 255 - len(".json.partial")
"""What file systems take, less what comes behind the name of a picture."""


def check_new_folder(folder: Path) -> None:
    """Check that an annotation folder can be written to a place, before the work whose result it will hold.

    Raises:
        AnnotationError: The folder already holds something.
        OutputError: It is a file, or a part of its path is one.
    """
    check_folder_place(folder, "--out")
    if folder.exists() and any(folder.iterdir()):
        raise AnnotationError(f"{folder} is not empty; give a new folder so that no annotation is lost", field="folder")


def check_names(names: Sequence[str]) -> None:
    """Check that pictures can have these names in a folder, before the work whose result they will be.

    Raises:
        AnnotationError: One cannot.
    """
    for name in names:
        taken = name in ("", "classes", "latents") or name.startswith(".") or name.endswith(".mask")
        if taken or {*"/\\"} & {*name} or len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise AnnotationError(
                f"a picture is named {name!r}, expected a name of at most {MAX_NAME_BYTES} bytes that is no other "
                "file's of the folder (classes, latents, NAME.mask) and begins with no dot; rename it, or take it out "
                "if it is no picture",
                field="names",
            )


def write_annotations(annotated: AnnotatedSet, folder: Path) -> None:
    """Write an annotation folder, which appears whole or not at all.

    Raises:
        AnnotationError: The folder already holds something, or the names are not in ascending order.
        OutputError: It is a file, or a part of its path is one.
    """
    check_new_folder(folder)
    names = _names_of(annotated)
    with placed_whole(folder) as staging:
        _write_files(annotated, names, staging)


def _write_files(annotated: AnnotatedSet, names: tuple[str, ...], folder: Path) -> None:
    schema = annotated.schema
    write_json(
        folder / "classes.json",
        {
            "classes": [
                {"name": name, "color": list(color)}
                for name, color in zip(schema.class_names, schema.palette, strict=True)
            ],
            "keypoints": list(schema.keypoint_names),
            "skeleton": [list(pair) for pair in schema.skeleton],
            "left_right_pairs": [list(pair) for pair in schema.left_right_pairs],
        },
    )
    write_tensors(folder / "latents.safetensors", {"z": annotated.z, "ws": annotated.ws})
    palette = bytes(value for color in schema.palette for value in color).ljust(768, b"\xff")
    for index, name in enumerate(names):
        Image.fromarray(annotated.pictures[index]).save(folder / f"{name}.png", optimize=True)
        mask = Image.fromarray(annotated.masks[index], mode=None).convert("L")
        mask.putpalette(palette)
        mask.save(folder / f"{name}.mask.png", optimize=True)
        write_json(folder / f"{name}.json", _labelme_record(annotated, index, f"{name}.png"))


def _names_of(annotated: AnnotatedSet) -> tuple[str, ...]:
    """The names, or numbers with so many digits that the order of the names is the order of the numbers."""
    if not annotated.names:
        digits = max(2, len(str(len(annotated) - 1)))
        return tuple(f"{index:0{digits}d}" for index in range(len(annotated)))
    names = annotated.names
    if len(names) != len(annotated) or list(names) != sorted(set(names)):
        raise AnnotationError(
            f"names are {list(names)}, expected {len(annotated)} different ones in ascending order", field="names"
        )
    check_names(names)
    return names


def _labelme_record(annotated: AnnotatedSet, index: int, picture_name: str) -> dict[str, object]:
    height, width = annotated.masks.shape[1:]
    shapes: list[dict[str, object]] = [
        {
            "label": name,
            "points": [[round(float(x), 2), round(float(y), 2)]],
            "group_id": None,
            "shape_type": "point",
            "flags": {},
        }
        for name, (x, y, visible) in zip(annotated.schema.keypoint_names, annotated.keypoints[index], strict=True)
        if visible > 0.5
    ]
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": picture_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
