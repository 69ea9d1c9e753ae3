"""The sheet's canvas and its legends."""

from typing import TypeAlias

import numpy as np

from labelmint_client import _optional
from labelmint_client._contact_sheet.text import font, printable, text_width
from labelmint_client._contact_sheet.tiles import LEFT_COLOUR, MIDDLE_COLOUR, RIGHT_COLOUR, heat_colours
from labelmint_client._model import Model

Colour: TypeAlias = tuple[int, int, int]

_PAPER = (255, 255, 255)
_EDGE = (206, 212, 219)
_RADIUS = 10
_SWATCH = 30
_LINE = 46
_RAMP = 320
# Corners are drawn this much larger and scaled down, which smooths them.
_OVERSAMPLING = 4


class Canvas:
    """A white page with the few marks that the sheet needs.

    Args:
        width: Pixels.
        height: Pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.picture = _optional.Image.new("RGB", (width, height), _PAPER)
        self._draw = _optional.ImageDraw.Draw(self.picture)

    def text(
        self, at: tuple[int, int], text: str, size: int, colour: Colour, *, weight: int = 0, align_right: bool = False
    ) -> int:
        """Write a line.

        Args:
            at: x and y of its top left corner, or top right if align_right.
            text: The line.
            size: Of the typeface, pixels.
            colour: Of the letters.
            weight: Pixels by which the strokes are thickened.
            align_right: Whether the line ends at x.

        Returns:
            x where it ends.
        """
        spelt = printable(text)
        typeface = font(size)
        length = text_width(text, size)
        x = at[0] - length if align_right else at[0]
        self._draw.text((x, at[1]), spelt, fill=colour, font=typeface, stroke_width=weight, stroke_fill=colour)
        return x + length

    def rule(self, y: int, margin: int, colour: Colour) -> None:
        """Draw a thin line across the page."""
        self._draw.rectangle((margin, y, self.width - margin - 1, y + 1), fill=colour)

    def tile(self, tile: "_optional.Image.Image", at: tuple[int, int], *, radius: int = _RADIUS) -> None:
        """Paste a picture with rounded corners and a thin edge.

        Args:
            tile: The picture.
            at: x and y of its top left corner.
            radius: Of the corners, pixels.
        """
        width, height = tile.size
        framed = (width + 2, height + 2)
        self.picture.paste(_EDGE, (at[0] - 1, at[1] - 1), _rounded(framed, radius + 1))
        self.picture.paste(tile, at, _rounded((width, height), radius))

    def dot(self, middle: tuple[int, int], radius: int, colour: Colour) -> None:
        """Draw a filled circle with smooth edge."""
        side = 2 * radius
        box = (middle[0] - radius, middle[1] - radius)
        self.picture.paste(colour, box, _rounded((side, side), radius))


def draw_class_legend(canvas: Canvas, model: Model, at: tuple[int, int], right: int, ink: Colour) -> int:
    """Draw a swatch with its name for each class, in as many lines as needed.

    Args:
        canvas: The page.
        model: The model.
        at: x and y of the top left corner.
        right: x where lines must end.
        ink: Colour of the names.

    Returns:
        y below the last line.
    """
    x, y = at
    for name, colour in zip(model.class_names, model.palette.tolist(), strict=True):
        length = text_width(name, 24)
        if x > at[0] and x + _SWATCH + 12 + length > right:
            x, y = at[0], y + _LINE
        canvas.tile(_optional.Image.new("RGB", (_SWATCH, _SWATCH), tuple(colour)), (x, y), radius=6)
        x = canvas.text((x + _SWATCH + 12, y + 2), name, 24, ink) + 34
    return y + _LINE


def draw_point_legend(canvas: Canvas, at: tuple[int, int], ink: Colour) -> int:
    """Draw what the colours of the keypoints mean.

    Args:
        canvas: The page.
        at: x and y of the top left corner.
        ink: Colour of the names.

    Returns:
        x where it ends.
    """
    x, y = at
    for name, colour in (("left", LEFT_COLOUR), ("right", RIGHT_COLOUR), ("middle", MIDDLE_COLOUR)):
        canvas.dot((x + _SWATCH // 2, y + _SWATCH // 2), 10, colour)
        x = canvas.text((x + _SWATCH + 12, y + 2), name, 24, ink) + 34
    return x - 34


def draw_heat_legend(
    canvas: Canvas, at: tuple[int, int], right: int, top: float, ink: Colour, soft_ink: Colour
) -> None:
    """Draw the colour bar of the uncertainty.

    Args:
        canvas: The page.
        at: x and y of the top left corner.
        right: x where the page ends.
        top: Value at the bright end, nats.
        ink: Colour of the numbers.
        soft_ink: Colour of the words.
    """
    x, y = at
    x = canvas.text((x, y + 2), "uncertainty", 24, soft_ink) + 24
    x = canvas.text((x, y + 2), "0", 24, ink) + 14
    ramp = np.repeat(heat_colours(np.linspace(0.0, 1.0, _RAMP))[np.newaxis], _SWATCH, axis=0)  # [swatch, ramp, 3]
    canvas.tile(_optional.Image.fromarray(ramp), (x, y), radius=6)
    x = canvas.text((x + _RAMP + 14, y + 2), f"{top:.2g} nats", 24, ink) + 24
    note = "(Jensen-Shannon divergence of the ensemble)"
    if x + text_width(note, 24) <= right:
        canvas.text((x, y + 2), note, 24, soft_ink)


def _rounded(size: tuple[int, int], radius: int) -> "_optional.Image.Image":
    large = _optional.Image.new("L", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    box = (0, 0, large.width - 1, large.height - 1)
    _optional.ImageDraw.Draw(large).rounded_rectangle(box, radius * _OVERSAMPLING, fill=255)
    return large.resize(size, _optional.Image.Resampling.BOX)
