"""Shapes of annotation programs, drawn as masks.

One rule for all of them: a pixel belongs to a shape if its centre, which lies at +0.5, does. What two shapes share as a
border is drawn once, and the area of a large shape is not biased, as it is where outlines are drawn too.

Shapes are in the pixels of the picture that was drawn on; `size` is that of the mask to draw, so that labels of an
enlarged picture can be brought to the size of the original.

A shape is drawn on the part of the mask around it alone: thousands of small ones cost what they cover.

Legend: H rows, W columns of the mask; h, w of the picture that was drawn on; P points.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""float64 [P, 2]: x, y."""
Mask = npt.NDArray[np.bool_]
"""bool, rows and columns."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The mask to draw, and the picture that was drawn on."""

    height: int
    """H."""
    width: int
    """W."""
    drawn_height: int
    """h."""
    drawn_width: int
    """w."""

    def centres(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Centres of the mask's pixels in the picture that was drawn on: x float64 [1, W], y float64 [H, 1]."""
        x = (np.arange(self.width, dtype=np.float64) + 0.5) * (self.drawn_width / self.width)
        y = (np.arange(self.height, dtype=np.float64) + 0.5) * (self.drawn_height / self.height)
        return x[None, :], y[:, None]


@dataclass(frozen=True, slots=True)
class Patch:
    """What a shape covers of a mask: nothing outside the patch."""

    inside: Mask
    """A part of the mask, perhaps of no pixels."""
    top: int
    """Row of the part's first pixel."""
    left: int
    """Column of the part's first pixel."""

    @property
    def place(self) -> tuple[slice, slice]:
        """The part as an index of the mask."""
        height, width = self.inside.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class Shape(Protocol):
    """Anything that covers pixels."""

    def draw(self, frame: Frame) -> Patch:
        """Draw the shape."""
        ...


@dataclass(frozen=True, slots=True)
class Polygons:
    """The union of polygons; where a polygon crosses itself, the even-odd rule holds."""

    rings: tuple[Points, ...]
    """Each of at least three points; the last is joined to the first."""

    def draw(self, frame: Frame) -> Patch:
        """Draw the shape."""
        scale = np.array([frame.width / frame.drawn_width, frame.height / frame.drawn_height])
        rings = [ring * scale for ring in self.rings]
        rows, columns = _around(np.concatenate([np.empty((0, 2)), *rings]), frame)
        inside = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.bool_)
        for ring in rings:
            part = _fill(ring, frame)
            height, width = part.inside.shape
            top, left = part.top - rows.start, part.left - columns.start
            inside[top : top + height, left : left + width] |= part.inside
        return Patch(inside, rows.start, columns.start)


def _around(points: Points, frame: Frame) -> tuple[slice, slice]:
    """Rows and columns of the mask around points, a pixel wider than they are."""
    if not len(points):
        return slice(0, 0), slice(0, 0)
    size = np.array([frame.width, frame.height])
    left, top = (np.floor(points.min(axis=0)) - 1).clip(0, size).astype(int).tolist()
    right, bottom = (np.ceil(points.max(axis=0)) + 1).clip(0, size).astype(int).tolist()
    return slice(top, bottom), slice(left, right)


def _fill(ring: Points, frame: Frame) -> Patch:
    """Fill a polygon row by row: from every crossing on, the inside of the row is flipped."""
    rows, columns = _around(ring, frame)
    flips = np.zeros((rows.stop - rows.start, columns.stop - columns.start + 1), np.bool_)
    ends = np.roll(ring, -1, axis=0)
    first = np.ceil(np.minimum(ring[:, 1], ends[:, 1]) - 0.5).clip(rows.start, rows.stop).astype(np.intp)
    last = np.ceil(np.maximum(ring[:, 1], ends[:, 1]) - 0.5).clip(rows.start, rows.stop).astype(np.intp)
    for edge in np.flatnonzero(first < last):  # the others cross no row of centres
        (x0, y0), (x1, y1) = ring[edge], ends[edge]
        crossed = np.arange(first[edge], last[edge])
        crossings = x0 + (crossed + 0.5 - y0) / (y1 - y0) * (x1 - x0)
        places = np.ceil(crossings - 0.5).clip(columns.start, columns.stop).astype(np.intp)
        flips[crossed - rows.start, places - columns.start] ^= True
    return Patch(np.logical_xor.accumulate(flips, axis=1)[:, :-1], rows.start, columns.start)


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse or a circle."""

    x: float
    """Of the middle."""
    y: float
    """Of the middle."""
    radius_x: float
    """Before the rotation."""
    radius_y: float
    """Before the rotation."""
    rotation_degrees: float = 0.0
    """Clockwise as seen."""

    def draw(self, frame: Frame) -> Patch:
        """Draw the shape."""
        across, down = frame.centres()
        reach = max(self.radius_x, self.radius_y) + 1.0  # 1: the sums below are rounded
        columns = _between(across[0], self.x - reach, self.x + reach)
        rows = _between(down[:, 0], self.y - reach, self.y + reach)
        right, below = across[:, columns] - self.x, down[rows] - self.y
        cosine, sine = math.cos(math.radians(self.rotation_degrees)), math.sin(math.radians(self.rotation_degrees))
        inside = np.empty((below.size, right.size), np.bool_)
        for band in _bands(below.size):
            along, athwart = right * cosine + below[band] * sine, below[band] * cosine - right * sine
            inside[band] = (along / self.radius_x) ** 2 + (athwart / self.radius_y) ** 2 <= 1.0
        return Patch(inside, rows.start, columns.start)


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through points, with round ends and joints."""

    points: Points
    """At least two."""
    thickness: float
    """Of the line."""

    def draw(self, frame: Frame) -> Patch:
        """Draw the shape."""
        across, down = frame.centres()
        reach = self.thickness / 2
        low, high = self.points.min(axis=0) - reach, self.points.max(axis=0) + reach
        part_columns, part_rows = _between(across[0], low[0], high[0]), _between(down[:, 0], low[1], high[1])
        across, down = across[:, part_columns], down[part_rows]
        inside = np.zeros((down.size, across.size), np.bool_)
        for start, end in zip(self.points[:-1], self.points[1:], strict=True):
            low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
            columns = _between(across[0], low[0], high[0])
            rows = _between(down[:, 0], low[1], high[1])
            x, below = across[:, columns] - start[0], down[rows] - start[1]
            step = end - start
            square = float(step @ step)
            part = inside[rows, columns]
            for band in _bands(below.size):
                y = below[band]
                share = ((x * step[0] + y * step[1]) / square).clip(0, 1) if square else np.zeros_like(x * y)
                part[band] |= (x - share * step[0]) ** 2 + (y - share * step[1]) ** 2 <= reach**2
        return Patch(inside, part_rows.start, part_columns.start)


def _bands(height: int) -> Iterator[slice]:
    """Rows, some at a time: what is computed for each pixel takes many times the memory of the mask."""
    return (slice(first, first + 64) for first in range(0, height, 64))


def _between(centres: npt.NDArray[np.float64], low: float, high: float) -> slice:
    return slice(int(np.searchsorted(centres, low, "left")), int(np.searchsorted(centres, high, "right")))


@dataclass(frozen=True, slots=True)
class Raster:
    """A mask somewhere in the picture."""

    inside: Mask
    """bool, the pixels of a part of the picture that was drawn on."""
    left: int = 0
    """Column of the part's first pixel."""
    top: int = 0
    """Row of the part's first pixel."""

    def draw(self, frame: Frame) -> Patch:
        """Draw the shape; in another size each pixel takes what lies at its centre."""
        across, down = frame.centres()
        columns = np.floor(across[0]).astype(np.intp) - self.left
        rows = np.floor(down[:, 0]).astype(np.intp) - self.top
        right = _used(columns, np.asarray(self.inside.any(axis=0)))
        below = _used(rows, np.asarray(self.inside.any(axis=1)))
        inside = self.inside[np.ix_(rows[below], columns[right])]
        return Patch(inside, below.start, right.start)


def _used(indices: npt.NDArray[np.intp], used: npt.NDArray[np.bool_]) -> slice:
    """Which ascending indices lie between the first and the last that is used."""
    places = np.flatnonzero(used)
    if not places.size:
        return slice(0, 0)
    return slice(int(np.searchsorted(indices, places[0], "left")), int(np.searchsorted(indices, places[-1], "right")))


class Encoded(ABC):
    """A mask that is decoded while it is drawn, not before: files hold thousands of them, as large as pictures."""

    __slots__ = ()

    @abstractmethod
    def decode(self) -> Raster:
        """Decode the mask."""

    def draw(self, frame: Frame) -> Patch:
        """Draw the shape."""
        return self.decode().draw(frame)


def rectangle(x0: float, y0: float, x1: float, y1: float, rotation_degrees: float = 0.0) -> Polygons:
    """Make a rectangle from two opposite corners, turned clockwise as seen around its middle."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
    if rotation_degrees:
        cosine, sine = math.cos(math.radians(rotation_degrees)), math.sin(math.radians(rotation_degrees))
        middle = corners.mean(axis=0)
        corners = (corners - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle
    return Polygons((corners,))
