"""Masks as lengths of runs: COCO's RLE, compressed and not.

The runs alternate, outside first, down the columns. COCO's compressed text writes each length in groups of five bits,
lowest first, where 32 in a character means that more follow; lengths from the fourth on are differences to the one two
before. The lengths must add up to the pixels: pycocotools does not look, and fills the rest of a mask whose runs are
too short with what was in memory (2.0.11), which is why it is the tests' truth and not the decoder here.

Legend: H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint_export.annotations.drawing import Encoded, Raster
from labelmint_export.errors import AnnotationError

MAX_GROUPS = 7
"""35 bits: more than any run of a picture that is read."""


@dataclass(frozen=True, slots=True)
class Runs(Encoded):
    """A mask as lengths of runs that were checked."""

    lengths: npt.NDArray[np.int32]
    """Alternating, outside first; they add up to height * width."""
    height: int
    """H."""
    width: int
    """W."""
    left: int = 0
    """Column of the mask's first pixel in the picture that was drawn on."""
    top: int = 0
    """Row of the mask's first pixel."""
    by_column: bool = True
    """Runs go down the columns as in COCO; otherwise along the rows as in CVAT."""

    def decode(self) -> Raster:
        """Decode the mask: bool [H, W]."""
        flat = np.repeat(np.arange(len(self.lengths)) % 2 == 1, self.lengths)
        inside = flat.reshape(self.width, self.height).T if self.by_column else flat.reshape(self.height, self.width)
        return Raster(inside, self.left, self.top)


def check_runs(lengths: Sequence[object], height: int, width: int, where: str) -> npt.NDArray[np.int32]:
    """Check that lengths of runs are those of a mask.

    Args:
        lengths: Alternating, outside first.
        height: H.
        width: W.
        where: The place in the file, for the errors.

    Returns:
        The lengths.

    Raises:
        AnnotationError: A length is no integer of at least 0, or they do not add up to H * W.
    """
    pixels = height * width
    whole = [length for length in lengths if isinstance(length, int) and not isinstance(length, bool)]
    if len(whole) != len(lengths) or any(not 0 <= length <= pixels for length in whole):
        raise AnnotationError(
            f"{where}: a run of the mask is no integer from 0 to {pixels}, the pixels of its {width} x {height} frame",
            field="counts",
        )
    if sum(whole) != pixels:
        raise AnnotationError(
            f"{where}: the runs of the mask add up to {sum(whole)} pixels, expected {pixels} = {width} x {height}; "
            "the mask is damaged or belongs to another size",
            field="counts",
        )
    return np.array(whole, np.int32)


def decode_text(text: str, where: str) -> list[int]:
    """Turn COCO's compressed text into lengths of runs.

    Raises:
        AnnotationError: A character or a group does not belong to the format.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift >= 5 * MAX_GROUPS:
            raise AnnotationError(f"{where}: {text[:40]!r} is no compressed RLE of COCO", field="counts")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise AnnotationError(f"{where}: the compressed RLE ends in the middle of a number", field="counts")
    return lengths


def parse_coco(record: dict[str, Any], size: tuple[int, int], where: str) -> Runs:  # Any: parsed JSON, checked here
    """Check COCO's RLE object.

    Args:
        record: {"size": [H, W], "counts": text or list of integers}.
        size: H, W of the picture, which the mask has to have.
        where: The place in the file, for the errors.

    Returns:
        The mask, which is decoded when it is drawn.

    Raises:
        AnnotationError: The object is malformed, or its mask is of another size.
    """
    claimed, counts = record.get("size"), record.get("counts")
    if claimed != list(size):
        raise AnnotationError(
            f"{where}: the size of the RLE is {claimed!r}, expected {list(size)}, rows and columns of the picture",
            field="size",
        )
    if isinstance(counts, str):
        counts = decode_text(counts, where)
    if not isinstance(counts, list):
        raise AnnotationError(f"{where}: counts is {type(counts).__name__}, expected a text or a list", field="counts")
    return Runs(check_runs(counts, *size, where), *size)


def lengths_from_text(text: str, where: str) -> list[int]:
    """Read lengths that are written in decimal with commas between.

    Raises:
        AnnotationError: One is no number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise AnnotationError(
            f"{where}: rle is {text[:40]!r}, expected integers with commas between", field="rle"
        ) from error
