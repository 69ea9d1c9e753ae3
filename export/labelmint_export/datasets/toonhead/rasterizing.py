"""SVG to pixels, with resvg."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmint_export.errors import DatasetError


def rasterize(svg: str, resolution: int) -> npt.NDArray[np.uint8]:
    """Rasterise a square, fully opaque SVG.

    Args:
        svg: a document with a square view box whose background covers all of it.
        resolution: side of the picture in pixels.

    Returns:
        uint8 [H, W, 3], sRGB.

    Raises:
        DatasetError: resvg is not installed, or refuses the document.
    """
    try:
        import resvg_py  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise DatasetError(f"cannot draw avatars ({error}); run: pip install 'labelmint[train]'") from error
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=resolution, height=resolution, skip_system_fonts=True)
    except ValueError as error:
        raise DatasetError(
            f"resvg cannot draw an SVG of {len(svg)} characters at {resolution} x {resolution}: {error}; "
            "it has to be well-formed and have a view box"
        ) from error
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.array(image.convert("RGB"), dtype=np.uint8)  # [H, W, 3]
    assert pixels.shape == (resolution, resolution, 3)
    return pixels
