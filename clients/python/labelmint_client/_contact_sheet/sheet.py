"""Lays samples out on one sheet: a column a sample, a row a view, with legends and the attribution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from labelmint_client import _optional
from labelmint_client._contact_sheet.legends import Canvas, draw_class_legend, draw_heat_legend, draw_point_legend
from labelmint_client._contact_sheet.text import joined_lines, text_width
from labelmint_client._contact_sheet.tiles import image_tile, keypoint_tile, mask_tile, uncertainty_tile
from labelmint_client._model import Model
from labelmint_client._sample import Sample

_COLUMNS = 8
_MARGIN = 64
_GAP = 12
_BAND_GAP = 44
_LABEL_WIDTH = 148
_CAPTION = 40
_TILE_WIDTH = 256

_INK = (28, 36, 48)
_SOFT_INK = (101, 114, 130)
_RULE = (222, 226, 231)

_Tile = Callable[[Sample], "_optional.Image.Image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetTitle:
    """What the head of a sheet says besides the model.

    Attributes:
        seed: Seed of the samples.
        truncation_psi: Truncation of the samples.
        num_samples: Samples in the data set that these were taken from.
    """

    seed: int
    truncation_psi: float
    num_samples: int


def render_contact_sheet(samples: Sequence[Sample], model: Model, title: SheetTitle) -> "_optional.Image.Image":
    """Draw a contact sheet.

    Args:
        samples: Samples with image and mask, and with keypoints and uncertainty maps where they are to be shown; at
            least one.
        model: Their model.
        title: Where they come from.

    Returns:
        The sheet, RGB.
    """
    height, width = model.image_size
    size = (_TILE_WIDTH, round(_TILE_WIDTH * height / width))
    top_heat = _top_heat(samples)
    rows = _rows(samples[0], model, size, top_heat)
    bands = [samples[first : first + _COLUMNS] for first in range(0, len(samples), _COLUMNS)]
    columns = min(_COLUMNS, max(len(samples), 4))
    sheet_width = 2 * _MARGIN + _LABEL_WIDTH + columns * (_TILE_WIDTH + _GAP) - _GAP
    band_height = len(rows) * (size[1] + _GAP) + _CAPTION
    attribution = _attribution(model, sheet_width - 2 * _MARGIN)
    # Surely enough for the legends and the foot; the rest is cut off.
    sheet_height = 1000 + 50 * len(model.class_names) + len(bands) * (band_height + _BAND_GAP) + 30 * len(attribution)
    canvas = Canvas(sheet_width, sheet_height)
    y = _draw_head(canvas, model, title, len(samples))
    y = _draw_legends(canvas, model, y, rows, top_heat)
    for band in bands:
        _draw_band(canvas, band, rows, size, y)
        y += band_height + _BAND_GAP
    y = _draw_foot(canvas, attribution, y)
    return canvas.picture.crop((0, 0, sheet_width, y + _MARGIN - 12))


def _rows(sample: Sample, model: Model, size: tuple[int, int], top_heat: float) -> dict[str, _Tile]:
    rows: dict[str, _Tile] = {
        "image": lambda shown: image_tile(shown.image, size),
        "classes": lambda shown: mask_tile(shown.mask, model.palette, size),
    }
    if sample.has("keypoints") and model.keypoint_names:
        rows["keypoints"] = lambda shown: keypoint_tile(shown, model, size)
    if sample.has("uncertainty_map"):
        rows["uncertainty"] = lambda shown: uncertainty_tile(shown.uncertainty_map, top_heat, size)
    return rows


def _top_heat(samples: Sequence[Sample]) -> float:
    """Choose the end of the heat scale: nearly the largest value, rounded up to two digits."""
    maps = [sample.uncertainty_map for sample in samples if sample.has("uncertainty_map")]
    if not maps:
        return 1.0
    largest = max(float(np.quantile(np.stack(maps).astype(np.float32), 0.999)), 1e-3)
    unit = 10.0 ** (np.floor(np.log10(largest)) - 1)
    return float(np.ceil(largest / unit) * unit)


def _draw_head(canvas: Canvas, model: Model, title: SheetTitle, num_shown: int) -> int:
    height, width = model.image_size
    y = _MARGIN - 8
    end = canvas.text((_MARGIN, y), model.name, 58, _INK, weight=1)
    shown = f"{num_shown} of {title.num_samples} labelled samples"
    canvas.text((end + 26, y + 24), shown, 32, _SOFT_INK)
    y += 80
    facts = [f"seed {title.seed}", f"truncation psi {title.truncation_psi:.2f}", f"{width} x {height} pixels"]
    facts += [f"{len(model.class_names)} classes"]
    if model.keypoint_names:
        facts += [f"{len(model.keypoint_names)} keypoints"]
    facts += [f"bundle {model.digest[:12]}"]
    if num_shown < title.num_samples:
        facts += ["taken at even steps through the set, not hand-picked"]
    for line in joined_lines(facts, "  ·  ", 24, canvas.width - 2 * _MARGIN):
        canvas.text((_MARGIN, y), line, 24, _SOFT_INK)
        y += 34
    return y + 24


def _draw_legends(canvas: Canvas, model: Model, y: int, rows: dict[str, _Tile], top_heat: float) -> int:
    canvas.rule(y, _MARGIN, _RULE)
    y += 30
    left = _MARGIN + _LABEL_WIDTH
    right = canvas.width - _MARGIN
    canvas.text((_MARGIN, y + 2), "classes", 24, _SOFT_INK)
    y = draw_class_legend(canvas, model, (left, y), right, _INK) + 14
    x = left
    if "keypoints" in rows:
        canvas.text((_MARGIN, y + 2), "keypoints", 24, _SOFT_INK)
        x = draw_point_legend(canvas, (left, y), _INK) + 70
    if "uncertainty" in rows:
        draw_heat_legend(canvas, (x, y), right, top_heat, _INK, _SOFT_INK)
    if "keypoints" in rows or "uncertainty" in rows:
        y += 56
    canvas.rule(y, _MARGIN, _RULE)
    return y + 38


def _draw_band(
    canvas: Canvas, samples: Sequence[Sample], rows: dict[str, _Tile], size: tuple[int, int], top: int
) -> None:
    left = _MARGIN + _LABEL_WIDTH
    for column, sample in enumerate(samples):
        x = left + column * (size[0] + _GAP)
        name, score = f"#{sample.index}", f"score {sample.uncertainty:.3f}"
        canvas.text((x, top), name, 22, _INK)
        if text_width(f"{name} {score}", 22) <= size[0]:
            canvas.text((x + size[0], top), score, 22, _SOFT_INK, align_right=True)
        for row, tile in enumerate(rows.values()):
            canvas.tile(tile(sample), (x, top + _CAPTION + row * (size[1] + _GAP)))
    for row, name in enumerate(rows):
        middle = top + _CAPTION + row * (size[1] + _GAP) + size[1] // 2
        canvas.text((_MARGIN, middle - 14), name, 24, _SOFT_INK)


def _attribution(model: Model, width: int) -> list[str]:
    licence = model.licence
    terms = [f"Data: {licence.data or 'licence not stated'}.", f"Weights: {licence.weights or 'licence not stated'}."]
    words = " ".join([*terms, licence.attribution, licence.url]).split()
    return joined_lines(words, " ", 20, width)


def _draw_foot(canvas: Canvas, lines: list[str], y: int) -> int:
    canvas.rule(y - 8, _MARGIN, _RULE)
    y += 18
    for line in lines:
        canvas.text((_MARGIN, y), line, 20, _SOFT_INK)
        y += 30
    return y
