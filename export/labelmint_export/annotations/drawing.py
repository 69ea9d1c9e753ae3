"""Shapes of annotation programs, drawn as masks.

One rule for all of them: a pixel belongs to a shape if its centre, which lies at +0.5, does. What two shapes share as a
border is drawn once, and the area of a large shape is not biased, as it is where outlines are drawn too.

Shapes are in the pixels of the picture that was drawn on; `size` is that of the mask to draw, so that labels of an
enlarged picture can be brought to the size of the original.

Legend: H rows, W columns of the mask; h, w of the picture that was drawn on; P points.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""float64 [P, 2]: x, y."""
Mask = npt.NDArray[np.bool_]
"""bool [H, W]."""


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


class Shape(Protocol):
    """Anything that covers pixels."""

    def draw(self, frame: Frame) -> Mask:
        """Draw the shape: bool [H, W]."""
        ...


@dataclass(frozen=True, slots=True)
class Polygons:
    """The union of polygons; where a polygon crosses itself, the even-odd rule holds."""

    rings: tuple[Points, ...]
    """Each of at least three points; the last is joined to the first."""

    def draw(self, frame: Frame) -> Mask:
        """Draw the shape: bool [H, W]."""
        mask = np.zeros((frame.height, frame.width), np.bool_)
        scale = np.array([frame.width / frame.drawn_width, frame.height / frame.drawn_height])
        for ring in self.rings:
            mask |= _fill(ring * scale, frame.height, frame.width)
        return mask


def _fill(ring: Points, height: int, width: int) -> Mask:
    """Fill a polygon row by row: from every crossing on, the inside of the row is flipped."""
    flips = np.zeros((height, width + 1), np.bool_)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        first = min(max(math.ceil(min(y0, y1) - 0.5), 0), height)
        last = min(max(math.ceil(max(y0, y1) - 0.5), 0), height)
        if first >= last:
            continue
        rows = np.arange(first, last)
        crossings = x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)
        flips[rows, np.ceil(crossings - 0.5).clip(0, width).astype(np.intp)] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]


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

    def draw(self, frame: Frame) -> Mask:
        """Draw the shape: bool [H, W]."""
        across, down = frame.centres()
        right, below = across - self.x, down - self.y
        cosine, sine = math.cos(math.radians(self.rotation_degrees)), math.sin(math.radians(self.rotation_degrees))
        along, athwart = right * cosine + below * sine, below * cosine - right * sine
        inside: Mask = (along / self.radius_x) ** 2 + (athwart / self.radius_y) ** 2 <= 1.0
        return inside


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through points, with round ends and joints."""

    points: Points
    """At least two."""
    thickness: float
    """Of the line."""

    def draw(self, frame: Frame) -> Mask:
        """Draw the shape: bool [H, W]."""
        across, down = frame.centres()
        mask = np.zeros((frame.height, frame.width), np.bool_)
        reach = self.thickness / 2
        for start, end in zip(self.points[:-1], self.points[1:], strict=True):
            low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
            columns = _between(across[0], low[0], high[0])
            rows = _between(down[:, 0], low[1], high[1])
            x, y = across[:, columns] - start[0], down[rows] - start[1]
            step = end - start
            square = float(step @ step)
            share = ((x * step[0] + y * step[1]) / square).clip(0, 1) if square else np.zeros_like(x * y)
            mask[rows, columns] |= (x - share * step[0]) ** 2 + (y - share * step[1]) ** 2 <= reach**2
        return mask


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

    def draw(self, frame: Frame) -> Mask:
        """Draw the shape: bool [H, W]; in another size each pixel takes what lies at its centre."""
        across, down = frame.centres()
        columns = np.floor(across[0]).astype(np.intp) - self.left
        rows = np.floor(down[:, 0]).astype(np.intp) - self.top
        height, width = self.inside.shape
        right = (columns >= 0) & (columns < width)
        below = (rows >= 0) & (rows < height)
        mask = np.zeros((frame.height, frame.width), np.bool_)
        mask[np.ix_(below, right)] = self.inside[np.ix_(rows[below], columns[right])]
        return mask


def rectangle(x0: float, y0: float, x1: float, y1: float, rotation_degrees: float = 0.0) -> Polygons:
    """Make a rectangle from two opposite corners, turned clockwise as seen around its middle."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
    if rotation_degrees:
        cosine, sine = math.cos(math.radians(rotation_degrees)), math.sin(math.radians(rotation_degrees))
        middle = corners.mean(axis=0)
        corners = (corners - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle
    return Polygons((corners,))
