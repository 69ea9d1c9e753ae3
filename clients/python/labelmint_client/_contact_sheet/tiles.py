"""The four views of one sample: image, classes, keypoints, uncertainty.

Shape legend: H, W image size; h, w label size; C classes; K keypoints.
"""

import numpy as np
import numpy.typing as npt

from labelmint_client import _optional
from labelmint_client._model import Model
from labelmint_client._sample import Float16Array, Float32Array, Sample, UInt8Array

# Lines and dots are drawn this much larger and scaled down, which smooths their edges.
_OVERSAMPLING = 4
_PAPER = (255, 255, 255)

LEFT_COLOUR = (0, 114, 206)
RIGHT_COLOUR = (222, 60, 38)
MIDDLE_COLOUR = (24, 154, 87)

# Dark blue over purple and orange to pale yellow: even steps in lightness, also for the colour-blind.
_HEAT_STOPS = (
    (0, 0, 4),
    (27, 12, 65),
    (74, 12, 107),
    (120, 28, 109),
    (165, 44, 96),
    (207, 68, 70),
    (237, 105, 37),
    (251, 155, 6),
    (247, 209, 61),
    (252, 255, 164),
)


def heat_colours(values: npt.NDArray[np.float64]) -> UInt8Array:
    """Colour numbers.

    Args:
        values: Any shape, 0 to 1; what lies outside takes the colour of the end.

    Returns:
        sRGB, uint8 [..., 3].
    """
    stops = np.linspace(0.0, 1.0, len(_HEAT_STOPS))
    channels = np.array(_HEAT_STOPS, dtype=np.float64).T
    colours = np.stack([np.interp(values, stops, channel) for channel in channels], axis=-1)
    rounded: UInt8Array = np.rint(colours).astype(np.uint8)
    return rounded


def image_tile(image: UInt8Array, size: tuple[int, int]) -> "_optional.Image.Image":
    """Show the image.

    Args:
        image: sRGB, uint8 [H, W, 3].
        size: Width and height of the tile, pixels.
    """
    return _optional.Image.fromarray(image).resize(size, _optional.Image.Resampling.LANCZOS)


def mask_tile(mask: UInt8Array, palette: UInt8Array, size: tuple[int, int]) -> "_optional.Image.Image":
    """Show the classes in their colours, pixel by pixel.

    Args:
        mask: Class ids, uint8 [h, w].
        palette: Colours of the classes, uint8 [C, 3].
        size: Width and height of the tile, pixels.
    """
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[: len(palette)] = palette
    return _optional.Image.fromarray(colours[mask]).resize(size, _optional.Image.Resampling.NEAREST)


def uncertainty_tile(uncertainty_map: Float16Array, top: float, size: tuple[int, int]) -> "_optional.Image.Image":
    """Show the uncertainty as heat.

    Args:
        uncertainty_map: Nats, float16 [h, w].
        top: Value that takes the brightest colour, nats.
        size: Width and height of the tile, pixels.
    """
    heat = heat_colours(uncertainty_map.astype(np.float64) / top)
    return _optional.Image.fromarray(heat).resize(size, _optional.Image.Resampling.BICUBIC)


def keypoint_tile(sample: Sample, model: Model, size: tuple[int, int]) -> "_optional.Image.Image":
    """Show the visible keypoints and the lines between them on the faded image.

    Args:
        sample: With image and keypoints.
        model: Its model.
        size: Width and height of the tile, pixels.
    """
    image_height, image_width = model.image_size
    faded = _optional.Image.blend(image_tile(sample.image, size), _optional.Image.new("RGB", size, _PAPER), 0.4)
    scale = np.array([size[0] / image_width, size[1] / image_height]) * _OVERSAMPLING
    places = sample.keypoints[:, :2].astype(np.float64) * scale
    overlay = _optional.Image.new("RGBA", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    _draw_skeleton(overlay, places, sample.keypoints, model, unit=max(size) * _OVERSAMPLING / 256)
    faded.paste(*_smoothed(overlay, size))
    return faded


def keypoint_colours(model: Model) -> list[tuple[int, int, int]]:
    """Pick a colour for each keypoint: left, right, or in the middle.

    Args:
        model: The model.
    """
    colours = [MIDDLE_COLOUR] * len(model.keypoint_names)
    for pair in model.manifest.keypoints.left_right_pairs:
        colours[pair.first] = LEFT_COLOUR
        colours[pair.second] = RIGHT_COLOUR
    return colours


def _draw_skeleton(
    overlay: "_optional.Image.Image",
    places: npt.NDArray[np.float64],
    keypoints: Float32Array,
    model: Model,
    *,
    unit: float,
) -> None:
    draw = _optional.ImageDraw.Draw(overlay)
    visible = keypoints[:, 3] > 0
    for first, second in model.skeleton:
        if visible[first] and visible[second]:
            line = [*map(tuple, places[[first, second]].tolist())]
            draw.line(line, fill=(*_PAPER, 255), width=round(5 * unit))
            draw.line(line, fill=(52, 64, 78, 255), width=round(2.4 * unit))
    for place, colour, shown in zip(places, keypoint_colours(model), visible, strict=True):
        if shown:
            draw.circle(tuple(place.tolist()), 6.4 * unit, fill=(*_PAPER, 255))
            draw.circle(tuple(place.tolist()), 4.6 * unit, fill=(*colour, 255))


def _smoothed(
    overlay: "_optional.Image.Image", size: tuple[int, int]
) -> "tuple[_optional.Image.Image, tuple[int, int], _optional.Image.Image]":
    # Premultiplied, so that the transparent black around a line does not darken its edge.
    small = overlay.convert("RGBa").resize(size, _optional.Image.Resampling.BOX).convert("RGBA")
    return small.convert("RGB"), (0, 0), small.getchannel("A")
