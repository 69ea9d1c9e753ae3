"""COCO's run lengths of binary masks.

Shape legend: H, W size of the mask; R regions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """The pixels of one class.

    Attributes:
        label: Class id.
        counts: Lengths of the runs, column by column, beginning with pixels outside (0 if the first pixel is inside).
        area: Pixels inside.
        bbox: x, y, width, height of the smallest box around them, pixels.
    """

    label: int
    counts: list[int]
    area: int
    bbox: tuple[int, int, int, int]


def region_of(inside: npt.NDArray[np.bool_], label: int) -> Region | None:
    """Measure and encode one region.

    Args:
        inside: bool [H, W].
        label: Class id of the region.

    Returns:
        The region; None if it is empty.
    """
    columns = np.flatnonzero(inside.any(axis=0))
    if not columns.size:
        return None
    rows = np.flatnonzero(inside.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return Region(
        label=label,
        counts=_run_lengths(inside.ravel(order="F")),
        area=int(np.count_nonzero(inside)),
        bbox=(left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1),
    )


def class_regions(mask: npt.NDArray[np.uint8], *, skip: frozenset[int]) -> list[Region]:
    """Encode the region of each class that occurs.

    Args:
        mask: Class ids, uint8 [H, W].
        skip: Class ids to leave out.

    Returns:
        One region a class [R], by ascending class id.
    """
    labels = [int(label) for label in np.unique(mask) if int(label) not in skip]
    regions = (region_of(mask == label, label) for label in labels)
    return [region for region in regions if region is not None]


def _run_lengths(flat: npt.NDArray[np.bool_]) -> list[int]:
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate(([0], borders, [flat.size]))).tolist()
    return [0, *lengths] if flat[0] else lengths
