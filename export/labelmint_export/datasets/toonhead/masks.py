"""Exact part masks: the picture's own SVG, painted flat.

Each component's fills and outlines take the colour of its class, opaque and without anti-aliasing; shading is left out,
so what it shades shows through. Nine such samples are drawn per pixel, each has the class of the topmost component, and
the pixel has the class of most of them. One sample would do for large parts, but resvg's outlines without
anti-aliasing are off by some hundredths of a pixel, which makes whole pixels out of slivers that nobody sees.
"""

import functools
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from labelmint_export.datasets.toonhead.classes import CLASS_NAMES, COMPONENT_CLASSES, PALETTE
from labelmint_export.datasets.toonhead.rasterizing import rasterize
from labelmint_export.datasets.toonhead.shapes import is_shading
from labelmint_export.errors import DatasetError

_NAMESPACE = "http://www.w3.org/2000/svg"
_PAINTS = ("fill", "stroke")
_SAMPLES_PER_SIDE = 3


def render_mask(svg: str, resolution: int) -> npt.NDArray[np.uint8]:
    """Draw the part mask of an avatar.

    Args:
        svg: the picture, from `render_svg`.
        resolution: side of the mask in pixels.

    Returns:
        uint8 [H, W], values in [0, len(CLASS_NAMES)).

    Raises:
        DatasetError: a pixel has none of the classes' colours.
    """
    samples = labels_from_colors(rasterize(paint_flat(svg), resolution * _SAMPLES_PER_SIDE))
    side = _SAMPLES_PER_SIDE
    samples = samples.reshape(resolution, side, resolution, side).transpose(1, 3, 0, 2)
    return _most_frequent(samples.reshape(side * side, resolution, resolution))


def paint_flat(svg: str) -> str:
    """Repaint a picture in the colours of the classes.

    Args:
        svg: the picture, from `render_svg`.

    Returns:
        An SVG in which every shape has a colour of PALETTE.
    """
    # Without the namespace the parser keeps plain tag names, and writes them back.
    root = ET.fromstring(svg.replace(f' xmlns="{_NAMESPACE}"', "", 1))  # noqa: S314 - our own document
    root.set("xmlns", _NAMESPACE)
    root.set("shape-rendering", "crispEdges")
    background = root.find("g/rect")
    components = root.findall("defs/g")
    assert background is not None
    background.set("fill", _class_color("background"))
    for component in components:
        name = component.get("id", "").partition("-")[0]
        _paint(component, _class_color(COMPONENT_CLASSES[name]))
    return ET.tostring(root, encoding="unicode")


def labels_from_colors(colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Look up the class of each pixel of a flat picture.

    Args:
        colors: uint8 [H, W, 3], colours of PALETTE.

    Returns:
        uint8 [H, W], values in [0, len(CLASS_NAMES)).

    Raises:
        DatasetError: a pixel has a colour that PALETTE lacks.
    """
    codes, labels = _sorted_palette()
    pixel_codes = colors.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)  # [H, W]
    positions = np.searchsorted(codes, pixel_codes).clip(max=len(codes) - 1)
    strangers = codes[positions] != pixel_codes
    if strangers.any():
        raise DatasetError(
            f"{np.count_nonzero(strangers)} mask pixels have colours outside the palette, the first is "
            f"{colors[strangers][0].tolist()}; resvg blended what has to stay flat, "
            "so install the resvg-py version of the lock file"
        )
    found: npt.NDArray[np.uint8] = labels[positions]
    return found


def _most_frequent(samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Let the samples of each pixel vote; the middle one decides a tie.

    Args:
        samples: uint8 [S, H, W], S odd, row by row within the pixel.

    Returns:
        uint8 [H, W].
    """
    middle = samples[len(samples) // 2]
    winners: npt.NDArray[np.uint8] = middle.copy()
    disputed = (samples != middle).any(axis=0)  # [H, W], few: the outlines
    candidates = samples[:, disputed]  # [S, P]
    labels = np.arange(len(CLASS_NAMES), dtype=np.uint8)[:, None, None]
    votes = 2 * (candidates == labels).sum(axis=1) + (middle[disputed] == labels[:, 0])  # [C, P]
    winners[disputed] = votes.argmax(axis=0)
    return winners


def _paint(element: ET.Element, color: str) -> None:
    """Paint an element and all below it in one opaque colour; shading is not filled.

    Shapes inside `<mask>` become white, which leaves what they mask whole by opacity and by luminance.
    """
    if is_shading(element.attrib):
        element.set("fill", "none")
    for paint in _PAINTS:
        if element.get(paint, "none") != "none":
            element.set(paint, color)
        element.attrib.pop(f"{paint}-opacity", None)
    for child in element:
        _paint(child, "white" if child.tag == "mask" else color)


def _class_color(name: str) -> str:
    red, green, blue = PALETTE[CLASS_NAMES.index(name)]
    return f"#{red:02x}{green:02x}{blue:02x}"


@functools.cache
def _sorted_palette() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
    """Sort the palette's colours as numbers.

    Returns:
        Codes uint32 [C] (0xRRGGBB, ascending) and the label uint8 [C] of each.
    """
    codes = np.array([red << 16 | green << 8 | blue for red, green, blue in PALETTE], dtype=np.uint32)
    order = np.argsort(codes)
    return codes[order], order.astype(np.uint8)
