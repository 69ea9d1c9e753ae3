"""Which format a path holds, and its reader."""

import re
from dataclasses import dataclass
from pathlib import Path

from labelmint_export.annotations.coco import read_coco
from labelmint_export.annotations.cvat import read_cvat
from labelmint_export.annotations.files import read_json_object
from labelmint_export.annotations.labelme import read_labelme
from labelmint_export.annotations.labels import LabelSource
from labelmint_export.annotations.mask_files import read_npy_masks, read_png_masks
from labelmint_export.annotations.palettes import MaskPalette
from labelmint_export.errors import AnnotationError

FORMATS = ("labelme", "coco", "cvat", "png", "npy")
ENDINGS = {"labelme": ".json", "coco": ".json", "cvat": ".xml", "png": ".png", "npy": ".npy"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSettings:
    """How label files are read."""

    palette: MaskPalette
    """Of mask files."""
    line_width: float | None = None
    """Thickness of lines, pixels of the picture that was drawn on; None refuses lines."""
    skip: frozenset[str] = frozenset()
    """Labels whose shapes are not looked at."""
    keypoint_offset: float | None = None
    """Added to COCO's keypoints; None: 0.5 if all of a file are whole numbers, otherwise 0."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            AnnotationError: A field is out of range.
        """
        if self.line_width is not None and not 0 < self.line_width <= 1000:
            raise AnnotationError(
                f"line_width is {self.line_width}, expected more than 0, at most 1000 pixels", field="line_width"
            )
        if self.keypoint_offset is not None and not -1 <= self.keypoint_offset <= 1:
            raise AnnotationError(
                f"keypoint_offset is {self.keypoint_offset}, expected -1 to 1 pixels", field="keypoint_offset"
            )


def read_labels(path: Path, kind: str | None, settings: ReadSettings) -> LabelSource:
    """Read the labels of a file or folder.

    Args:
        path: A file, or a folder with the files of one format.
        kind: One of FORMATS; None: what the files look like.
        settings: How to read.

    Raises:
        AnnotationError: Nothing is there to read, or a file is malformed.
    """
    if not path.exists():
        raise AnnotationError(f"{path} does not exist; give a file or folder of labels", field="labels")
    kind = kind or _guess(path)
    paths = _files_of(path, kind)
    if kind == "labelme":
        return read_labelme(path, paths, settings.line_width, settings.skip)
    if kind == "png":
        return read_png_masks(path, paths, settings.palette)
    if kind == "npy":
        return read_npy_masks(path, paths, settings.palette)
    if len(paths) != 1:
        raise AnnotationError(f"{path} holds {len(paths)} {ENDINGS[kind]} files; give one of them", field="labels")
    if kind == "coco":
        return read_coco(paths[0], settings.keypoint_offset, settings.skip)
    return read_cvat(paths[0], settings.line_width, settings.skip)


def _files_of(path: Path, kind: str) -> list[Path]:
    if path.is_file():
        return [path]
    ending = ENDINGS[kind]
    paths = [one for one in _visible(path) if one.suffix.lower() == ending]
    if kind == "png" and any(one.name.endswith(".mask.png") for one in paths):
        paths = [one for one in paths if one.name.endswith(".mask.png")]  # the others are the pictures
    if ending == ".json":
        paths = [one for one in paths if one.name != "classes.json"]
    if not paths:
        raise AnnotationError(f"{path} holds no {ending} files, expected labels in the format {kind}", field="labels")
    return sorted(paths, key=_natural)


def _visible(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if not one.name.startswith(".")]


def _natural(path: Path) -> list[object]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _guess(path: Path) -> str:
    endings = {one.suffix.lower() for one in ([path] if path.is_file() else _visible(path))}
    if ".npy" in endings:
        return "npy"
    if ".xml" in endings:
        return "cvat"
    if ".json" in endings:
        jsons = _files_of(path, "labelme") if path.is_file() or _has_labels(path) else []
        if jsons:
            return "coco" if len(jsons) == 1 and "annotations" in read_json_object(jsons[0]) else "labelme"
    if ".png" in endings:
        return "png"
    raise AnnotationError(
        f"{path} holds no labels that are known, expected LabelMe or COCO (.json), CVAT (.xml), masks (.png, .npy)",
        field="labels",
    )


def _has_labels(folder: Path) -> bool:
    return any(one.suffix.lower() == ".json" and one.name != "classes.json" for one in _visible(folder))
