"""Arrays become picture files.

Shape legend: H, W image size; h, w label size; C classes.
"""

import io

import numpy as np
import numpy.typing as npt

from labelmint_client import _optional
from labelmint_client._sample import UInt8Array

# Twice as fast as the library's default of 6, some percent larger.
_IMAGE_COMPRESSION = 4


def image_png(image: UInt8Array) -> bytes:
    """Encode an image.

    Args:
        image: sRGB, uint8 [H, W, 3].
    """
    return _png(_optional.Image.fromarray(image), _IMAGE_COMPRESSION)


def mask_png(mask: UInt8Array, palette: npt.NDArray[np.uint8]) -> bytes:
    """Encode a mask as a palette picture: its bytes are the class ids, viewers show the classes' colours.

    Args:
        mask: Class ids, uint8 [h, w].
        palette: Colours of the classes, uint8 [C, 3].
    """
    picture = _optional.Image.fromarray(mask)
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[: len(palette)] = palette
    picture.putpalette(colours.tobytes())
    return _png(picture, 9)


def npy(array: npt.NDArray[np.float16]) -> bytes:
    """Encode an array in numpy's own format.

    Args:
        array: Any shape.
    """
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def resized_mask(mask: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Bring a mask to the size of its image, each pixel taking the label it lies in.

    Args:
        mask: Class ids, uint8 [h, w].
        size: H and W.

    Returns:
        uint8 [H, W]; the mask itself if it has that size.
    """
    if mask.shape == size:
        return mask
    rows = (np.arange(size[0]) * 2 + 1) * mask.shape[0] // (2 * size[0])
    columns = (np.arange(size[1]) * 2 + 1) * mask.shape[1] // (2 * size[1])
    resized: UInt8Array = mask[rows][:, columns]
    return resized


def _png(picture: "_optional.Image.Image", compress_level: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()
