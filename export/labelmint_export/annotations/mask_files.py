"""Reading masks of whole pictures: PNG (indexed, grey or in colours) and DatasetGAN's `.npy`.

Legend: h, w rows and columns of the picture that was drawn on.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmint_export.annotations.drawing import Encoded, Raster
from labelmint_export.annotations.files import MAX_PICTURE_PIXELS, check_file_size, open_image
from labelmint_export.annotations.labels import LabelSource, PictureLabels, Region
from labelmint_export.annotations.palettes import MaskPalette
from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.errors import AnnotationError
from labelmint_export.npy_files import read_npy

GREY_MODES = ("1", "L", "P", "I", "I;16")

Values = npt.NDArray[np.integer[Any]]  # Any: of any width
"""[h, w]."""


@dataclass(frozen=True, slots=True)
class MaskOfValue(Encoded):
    """The pixels of a map that have one value."""

    packed: bytes
    """Deflated, by rows: for each pixel the index of its value among those of the map. The shapes of a map share it."""
    dtype: np.dtype[np.unsignedinteger[Any]]  # Any: of any width
    """Of the indices."""
    size: tuple[int, int]
    """h, w."""
    index: int
    """Of the value."""

    def decode(self) -> Raster:
        """Decode the mask: bool [h, w]."""
        return Raster(np.frombuffer(zlib.decompress(self.packed), self.dtype).reshape(self.size) == self.index)


def read_png_masks(path: Path, paths: list[Path], palette: MaskPalette) -> LabelSource:
    """Read PNG masks, one a picture.

    Args:
        path: What the user gave, for the report.
        paths: The files.
        palette: What numbers and colours stand for. An indexed file is read by its colours if the palette holds no
            numbers, or knows all of its colours under other numbers: programs that go through RGB number them anew.

    Raises:
        AnnotationError: A file is malformed, or holds a value that the palette lacks.
    """
    return LabelSource(path, "png", tuple(_read_png(one, palette) for one in paths), palette.labels)


def _read_png(path: Path, palette: MaskPalette) -> PictureLabels:
    image = open_image(path)
    if image.mode in GREY_MODES and palette.numbers and not _is_coloured(image, palette):
        return _split_numbers(np.asarray(image).astype(np.int32), path, palette)
    if image.mode not in ("P", "RGB", "RGBA"):
        raise AnnotationError(
            f"{path} has mode {image.mode}, expected an indexed, grey or RGB PNG; "
            f"the palette holds {'numbers' if palette.numbers else 'colours'}",
            field="mask",
        )
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise AnnotationError(f"{path} is transparent in places; save it opaque", field="mask")
    if not palette.colors:
        raise AnnotationError(f"{path} is in colours; say with --palette what they stand for", field="palette")
    values = np.zeros((image.height, image.width), np.int32)
    for channel in image.convert("RGB").split():
        values = (values << 8) | np.asarray(channel)
    codes = {(r << 16) | (g << 8) | b: label for (r, g, b), label in palette.colors.items()}
    return _split(values, codes, path, "the colour #{:06x}")


def _is_coloured(image: Image.Image, palette: MaskPalette) -> bool:
    """Say whether an indexed file is in the colours of labels, but under other numbers than theirs."""
    if image.mode != "P":
        return False
    table = np.resize(np.array(image.getpalette("RGB") or [0], np.uint8), (256, 3))
    used = np.unique(np.asarray(image))
    shown = {index: (r, g, b) for index, (r, g, b) in zip(used.tolist(), table[used].tolist(), strict=True)}
    colors = set(shown.values())
    if len(colors) < len(shown) or not palette.colors.keys() >= colors:  # where numbers share a colour it says less
        return False
    labels = {index: palette.colors[color] for index, color in shown.items() if index != IGNORE_LABEL}
    renumbered = any(palette.numbers.get(index) != label for index, label in labels.items())
    return renumbered and any(label is not None for label in labels.values())


def read_npy_masks(path: Path, paths: list[Path], palette: MaskPalette) -> LabelSource:
    """Read `.npy` masks as DatasetGAN has them, one a picture: integers [h, w].

    Args:
        path: What the user gave, for the report.
        paths: The files.
        palette: What numbers stand for.

    Raises:
        AnnotationError: A file is malformed or holds objects, or holds a value that the palette lacks.
    """
    if not palette.numbers:
        raise AnnotationError("masks in .npy files hold numbers, but the palette holds colours", field="palette")
    return LabelSource(path, "npy", tuple(_read_npy(one, palette) for one in paths), palette.labels)


def _read_npy(path: Path, palette: MaskPalette) -> PictureLabels:
    check_file_size(path)
    try:
        array = read_npy(path)
    except (OSError, ValueError) as error:
        raise AnnotationError(
            f"{path} cannot be read as .npy ({error}), expected numbers [h, w]; save it with numpy.save",
            field=path.name,
        ) from error
    values = array.squeeze()
    if values.ndim != 2 or not 0 < values.size <= MAX_PICTURE_PIXELS:
        raise AnnotationError(
            f"{path} holds {array.dtype} {list(array.shape)}, expected numbers [h, w], at most {MAX_PICTURE_PIXELS}",
            field="mask",
        )
    is_whole = values.dtype.kind != "f"
    whole = values.astype(np.int64) if is_whole else _whole_numbers(values.astype(np.float64), path)
    return _split_numbers(whole, path, palette)


def _whole_numbers(values: npt.NDArray[np.float64], path: Path) -> npt.NDArray[np.int64]:
    if not bool(np.isfinite(values).all()) or bool((values != np.round(values)).any()):
        raise AnnotationError(
            f"{path} holds fractions or numbers that are not finite, expected class ids", field="mask"
        )
    return values.clip(-1, 2**31).astype(np.int64)


def _split_numbers(values: Values, path: Path, palette: MaskPalette) -> PictureLabels:
    return _split(values, palette.numbers, path, "the value {}")


def _split(values: Values, labels: dict[int, str | None], path: Path, shown: str) -> PictureLabels:
    """Turn a map of values into one region a value."""
    found, counts = np.unique(values, return_counts=True)
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        if value not in labels:
            row, column = divmod(int(np.argmax(values == value)), values.shape[1])
            raise AnnotationError(
                f"{path}: {shown.format(value)} of {count} pixels, the first in row {row}, column {column}, is not in "
                f"the palette ({len(found)} values in the file); add it with --palette, and save masks without "
                "anti-aliasing",
                field="mask",
            )
    height, width = values.shape
    indices = np.searchsorted(found, values).astype(np.min_scalar_type(len(found) - 1))
    packed = zlib.compress(indices.tobytes(), 1)
    regions = []
    for index, value in enumerate(found.tolist()):
        shape = MaskOfValue(packed, indices.dtype, (height, width), index)
        regions.append(Region(labels[value], shape, f"{path}, {shown.format(value)}"))
    return PictureLabels(path.name, path, (height, width), tuple(regions))
