"""What the readers of all label formats give: shapes and points with the names that the file uses.

Legend: h, w rows and columns of the picture that was drawn on.
"""

from dataclasses import dataclass
from pathlib import Path

from labelmint_export.annotations.drawing import Polygons, Shape

NOTHING = Polygons(())
"""In place of a shape that is to be skipped, which may be of a kind that has no area."""


@dataclass(frozen=True, slots=True)
class Region:
    """An area with a label."""

    label: str | None
    """As in the file; None: not labelled, the pixels become 255."""
    shape: Shape
    """In the pixels of the picture that was drawn on."""
    where: str
    """Its place in the file, for messages."""
    layer: int = 0
    """Higher ones lie on top; equal ones in the order of the file, the last on top."""


@dataclass(frozen=True, slots=True)
class Point:
    """A keypoint."""

    label: str
    """As in the file."""
    x: float
    """In the pixels of the picture that was drawn on, pixel centres at +0.5."""
    y: float
    """Likewise."""
    visible: bool
    """False: hidden by something."""
    where: str
    """Its place in the file, for messages."""


@dataclass(frozen=True, slots=True)
class PictureLabels:
    """All labels of one picture in one file."""

    picture: str
    """Name of the picture's file, as the label file has it; that of a mask of the whole picture is the mask's own."""
    path: Path
    """The label file."""
    size: tuple[int, int] | None
    """h, w as the file states them; None: it states none."""
    regions: tuple[Region, ...] = ()
    """In the order of the file."""
    points: tuple[Point, ...] = ()
    """In the order of the file."""

    @property
    def shapes(self) -> tuple[Region | Point, ...]:
        """Areas and points."""
        return (*self.regions, *self.points)


@dataclass(frozen=True, slots=True)
class LabelSource:
    """What was read from one path."""

    path: Path
    """File or folder."""
    format: str
    """Name of the format."""
    pictures: tuple[PictureLabels, ...]
    """One a labelled picture."""
    declared: tuple[str, ...] = ()
    """Names of labels that the file lists; whether a shape has them is found out later."""
    skeleton: tuple[tuple[str, str], ...] = ()
    """Pairs of names of keypoints."""
    notes: tuple[str, ...] = ()
    """What a person should know about the reading."""
