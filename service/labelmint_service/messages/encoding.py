"""Encoders: pictures and masks as the bytes that travel. Each function works on some samples in a worker thread.

N samples, H x W the frame.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import simplejpeg
import zstandard
from PIL import Image

from labelmint.v1 import bundle_pb2, service_pb2
from labelmint_service.requests.outputs import OutputPlan

_PNG_LEVEL = 1
_ZSTD_LEVEL = 1


def encode_images(images: npt.NDArray[np.uint8], plan: OutputPlan) -> list[bytes]:
    """Encode images with the plan's codec, which is not RAW.

    Args:
        images: uint8 [N, H, W, 3], sRGB.
        plan: Codec and quality.

    Returns:
        One file for each sample.
    """
    if plan.image_codec == service_pb2.CODEC_PNG:
        return [_png(Image.fromarray(image)) for image in images]
    return [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(image),
            quality=plan.jpeg_quality,
            colorspace="RGB",
            colorsubsampling=plan.jpeg_subsampling,
            fastdct=False,
        )
        for image in images
    ]


def encode_masks(labels: npt.NDArray[np.uint8], plan: OutputPlan, palette: bytes) -> list[bytes]:
    """Encode masks with the plan's codec, which is not RAW.

    Args:
        labels: uint8 [N, H, W], class ids.
        plan: Codec.
        palette: 768 bytes, red, green and blue of each id.

    Returns:
        One Zstandard frame or indexed PNG for each sample.
    """
    if plan.mask_codec == service_pb2.CODEC_ZSTD:
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        return [compressor.compress(np.ascontiguousarray(label).data) for label in labels]
    return [_png(_indexed(label, palette)) for label in labels]


def make_palette(classes: Sequence[bundle_pb2.SegmentationClass]) -> bytes:
    """Colours of all 256 ids: those of the classes, black between, white for "no class"."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for class_id, entry in enumerate(classes):
        colours[class_id] = (entry.red, entry.green, entry.blue)
    colours[255] = 255
    return colours.tobytes()


def _indexed(label: npt.NDArray[np.uint8], palette: bytes) -> Image.Image:
    picture = Image.fromarray(label)
    picture.putpalette(palette)
    return picture


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()
