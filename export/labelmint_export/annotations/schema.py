"""What is annotated: names and colours of classes, names of keypoints. `classes.json` of an annotation folder."""

from dataclasses import dataclass
from pathlib import Path

from labelmint_export.annotations.files import read_json_object
from labelmint_export.errors import AnnotationError

IGNORE_LABEL = 255
"""Pixel value of what nobody labelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationSchema:
    """Names and colours of what is annotated."""

    class_names: tuple[str, ...]
    """Class i has pixel value i."""
    palette: tuple[tuple[int, int, int], ...]
    """sRGB, one a class."""
    keypoint_names: tuple[str, ...] = ()
    """K names, in the order of every keypoint array."""
    skeleton: tuple[tuple[int, int], ...] = ()
    """Pairs of keypoints that are drawn as lines."""
    left_right_pairs: tuple[tuple[int, int], ...] = ()
    """Pairs of keypoints that swap in a mirrored picture."""

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            AnnotationError: A list does not fit the others.
        """
        if not 2 <= len(self.class_names) <= 255 or not _are_names(self.class_names):
            raise AnnotationError(
                f"classes are {list(self.class_names)}, expected 2 to 255 different names, none of them empty",
                field="classes",
            )
        if len(self.palette) != len(self.class_names):
            raise AnnotationError(
                f"palette has {len(self.palette)} colours for {len(self.class_names)} classes", field="palette"
            )
        if not _are_names(self.keypoint_names):
            raise AnnotationError(
                f"keypoints are {list(self.keypoint_names)}, expected different names, none of them empty",
                field="keypoints",
            )
        for name, pairs in (("skeleton", self.skeleton), ("left_right_pairs", self.left_right_pairs)):
            for pair in pairs:
                if not all(0 <= index < len(self.keypoint_names) for index in pair):
                    raise AnnotationError(
                        f"{name} names keypoint {max(pair)}, but there are {len(self.keypoint_names)}", field=name
                    )


def read_schema(folder: Path) -> AnnotationSchema:
    """Read `classes.json` of an annotation folder.

    Raises:
        AnnotationError: It is missing or malformed.
    """
    path = folder / "classes.json"
    if not path.is_file():
        problem = (
            "does not exist" if not folder.exists() else "holds no classes.json" if folder.is_dir() else "is a file"
        )
        raise AnnotationError(
            f"{folder} {problem}, expected a folder that sample, label, invert or import-annotations wrote; give its "
            "path",
            field=path.name,
        )
    record = read_json_object(path)
    try:
        return AnnotationSchema(
            class_names=tuple(str(entry["name"]) for entry in record["classes"]),
            palette=tuple(_color(entry["color"]) for entry in record["classes"]),
            keypoint_names=tuple(str(name) for name in record.get("keypoints", [])),
            skeleton=tuple((int(a), int(b)) for a, b in record.get("skeleton", [])),
            left_right_pairs=tuple((int(a), int(b)) for a, b in record.get("left_right_pairs", [])),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(
            f"{path} is malformed ({error!r}), expected classes with name and color", field="classes"
        ) from error


def _color(value: object) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        raise ValueError(f"color {value!r} is not three numbers from 0 to 255")
    return (value[0], value[1], value[2])


def _are_names(names: tuple[str, ...]) -> bool:
    return len(set(names)) == len(names) and all(name.strip() for name in names)
