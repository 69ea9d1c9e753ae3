"""Which colour or number of a mask file stands for which label."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmint_export.annotations.files import check_file_size
from labelmint_export.annotations.schema import IGNORE_LABEL, AnnotationSchema
from labelmint_export.errors import AnnotationError

Color = tuple[int, int, int]
UNLABELLED_COLOR: Color = (255, 255, 255)
"""That of 255 in the masks that `writing` writes."""


@dataclass(frozen=True, slots=True)
class MaskPalette:
    """Numbers and colours with the labels they stand for; None: not labelled."""

    numbers: dict[int, str | None]
    """Pixel values of indexed and grey files."""
    colors: dict[Color, str | None]
    """sRGB."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, each once."""
        every = [*self.numbers.values(), *self.colors.values()]
        return tuple(dict.fromkeys(label for label in every if label is not None))


def palette_of_schema(schema: AnnotationSchema) -> MaskPalette:
    """The palette of our own files: class ids, 255 and white for not labelled, and the colours of the classes."""
    numbers: dict[int, str | None] = dict(enumerate(schema.class_names)) | {IGNORE_LABEL: None}
    colors: dict[Color, str | None] = dict(zip(schema.palette, schema.class_names, strict=True))
    if len(colors) < len(schema.class_names):
        return MaskPalette(numbers, {})  # the colours say nothing
    colors.setdefault(UNLABELLED_COLOR, None)
    return MaskPalette(numbers, colors)


def parse_palette(entries: list[str]) -> MaskPalette:
    """Read a palette from arguments.

    Args:
        entries: NAME=NUMBER or NAME=#rrggbb, as many as wanted; or the path of one file: JSON ({NAME: NUMBER,
            "#rrggbb" or [r, g, b]}, or our own classes.json) or CVAT's labelmap.txt.

    Raises:
        AnnotationError: An entry is malformed, or one value has two labels.
    """
    pairs: list[tuple[str, object]] = []
    if len(entries) == 1 and Path(entries[0]).is_file():
        pairs = _read_file(Path(entries[0]))
    else:
        for entry in entries:
            name, equals, value = entry.rpartition("=")
            if not equals:
                raise AnnotationError(
                    f"palette has {entry!r}, expected NAME=NUMBER, NAME=#rrggbb, or the path of one file",
                    field="palette",
                )
            pairs.append((name, value))
    numbers: dict[int, str | None] = {}
    colors: dict[Color, str | None] = {}
    for label, given in pairs:
        parsed = _parse_value(label, given)
        target: dict[Any, str | None] = numbers if isinstance(parsed, int) else colors  # Any: keys of either
        if parsed in target:
            raise AnnotationError(f"palette gives {given} to {target[parsed]!r} and {label!r}", field="palette")
        target[parsed] = label
    if bool(numbers) == bool(colors):
        raise AnnotationError("palette holds nothing, or numbers and colours; give one of both", field="palette")
    return MaskPalette(numbers, colors)


def _read_file(path: Path) -> list[tuple[str, object]]:
    check_file_size(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            return _read_labelmap(text, path)
        record = json.loads(text)
        if isinstance(record, dict) and isinstance(record.get("classes"), list):
            return [(str(entry["name"]), entry["color"]) for entry in record["classes"]]
        if isinstance(record, dict):
            return [(str(name), value) for name, value in record.items()]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise AnnotationError(f"{path} cannot be read as a palette ({error!r})", field="palette") from error
    raise AnnotationError(f"{path} holds {type(record).__name__}, expected a JSON object", field="palette")


def _read_labelmap(text: str, path: Path) -> list[tuple[str, object]]:
    """Lines of CVAT's `label:r,g,b:parts:actions`."""
    pairs: list[tuple[str, object]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"(.+?):(\d+),(\d+),(\d+):.*", line.strip())
        if found is None:
            raise AnnotationError(
                f"{path} has the line {line[:60]!r}, expected label:red,green,blue:parts:actions", field="palette"
            )
        pairs.append((found[1], [int(found[i]) for i in (2, 3, 4)]))
    return pairs


def _parse_value(name: str, value: object) -> int | Color:
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return (int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16))
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return (value[0], value[1], value[2])
    raise AnnotationError(
        f"palette gives {value!r} to {name!r}, expected a number, #rrggbb, or [r, g, b] with 0 to 255", field="palette"
    )
