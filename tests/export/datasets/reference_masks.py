"""An independent way to the masks: the original drawing, part by part, supersampled, and only its opacity.

It shares nothing with `masks.py`: another renderer draws (librsvg instead of resvg), nothing is repainted, outlines and
clips come as they are drawn, and anti-aliasing is on. A part is present where it is more opaque than shading is (0.2)
and less than the most translucent part (0.5).
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from labelmint_export.datasets.toonhead import CLASS_NAMES
from labelmint_export.datasets.toonhead.classes import COMPONENT_CLASSES

SIDE = 768
"""Of the drawing, in its own units."""
SUPERSAMPLING = 9
OPACITY_THRESHOLD = 0.35


def draw_opacity(svg: str, resolution: int) -> npt.NDArray[np.float64]:
    """Draw one SVG and return its opacity, float64 [H, W] in [0, 1]."""
    drawn = pyvips.Image.svgload_buffer(svg.encode(), scale=resolution / SIDE).numpy()
    assert drawn.shape == (resolution, resolution, 4)
    opacity: npt.NDArray[np.float64] = drawn[..., 3] / 255.0
    return opacity


def isolate_component(svg: str, component: str) -> str:
    """Leave only one component of a picture, without the background."""
    without_background = re.sub(rf'<rect width="{SIDE}" height="{SIDE}" fill="[^"]*"/>', "", svg)
    return re.sub(rf'<use [^>]*href="#(?!{component}-)[^>]*/>', "", without_background)


def draw_reference_mask(svg: str, resolution: int) -> npt.NDArray[np.uint8]:
    """Draw the mask of a picture by majority over 9 x 9 samples, uint8 [H, W]."""
    side = SUPERSAMPLING
    samples = np.zeros((resolution * side, resolution * side), dtype=np.uint8)
    for component in re.findall(r'<use [^>]*href="#(\w+)-', svg):
        opacity = draw_opacity(isolate_component(svg, component), resolution * side)
        samples[opacity > OPACITY_THRESHOLD] = CLASS_NAMES.index(COMPONENT_CLASSES[component])
    tiles = samples.reshape(resolution, side, resolution, side)
    votes = np.stack([(tiles == label).sum(axis=(1, 3)) for label in range(len(CLASS_NAMES))])
    winners: npt.NDArray[np.uint8] = votes.argmax(axis=0).astype(np.uint8)
    return winners


def neighbourhoods(mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stack the 3 x 3 neighbours of each pixel, [9, H, W]."""
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    return np.stack([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)])
