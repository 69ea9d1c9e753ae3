"""Messages become samples.

Shape legend: N samples of a message; H, W image size; h, w label size; K keypoints.
"""

import io
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from labelmint.batches import ReceivedBatch
from labelmint.errors import ArrayError
from labelmint.v1 import service_pb2
from labelmint_client import _optional
from labelmint_client._errors import ProtocolError
from labelmint_client._sample import Sample, UInt8Array

_ScalarT = TypeVar("_ScalarT", bound=np.generic)


def has_encoded_items(batch: ReceivedBatch) -> bool:
    """Tell whether decoding a message takes real work, so that it is kept off an event loop."""
    message = batch.message
    return message.HasField("image_encoded") or message.HasField("mask_encoded")


def samples_from_batch(batch: ReceivedBatch, *, ordinal_offset: int = 0) -> list[Sample]:
    """Decode a message.

    Args:
        batch: The message.
        ordinal_offset: Added to each index.

    Returns:
        Its samples in order. RAW arrays are read-only views of what the message holds.

    Raises:
        ProtocolError: An array does not fit its shape, its kind, or the number of samples.
        MissingDependencyError: A codec's package is not installed.
    """
    count = len(batch.message.indices)
    if not count:
        return []
    images = _images(batch, count)
    masks = _masks(batch, count)
    keypoints = _array(batch, "keypoints", np.float32, (count, None, 4))
    maps = _array(batch, "uncertainty_map", np.float16, (count, None, None))
    latents = _array(batch, "z", np.float32, (count, None))
    scores = _array(batch, "uncertainty", np.float32, (count,))
    classes = list(batch.message.class_indices)
    if scores is None:
        raise ProtocolError("the message has samples but no uncertainty", field="uncertainty")
    if classes and len(classes) != count:
        raise ProtocolError(f"the message has {len(classes)} classes for {count} samples", field="class_indices")
    return [
        Sample(
            index=index + ordinal_offset,
            uncertainty=float(scores[row]),
            class_index=classes[row] if classes else None,
            image=None if images is None else images[row],
            mask=None if masks is None else masks[row],
            keypoints=None if keypoints is None else keypoints[row],
            uncertainty_map=None if maps is None else maps[row],
            z=None if latents is None else latents[row],
        )
        for row, index in enumerate(batch.message.indices)
    ]


def _images(batch: ReceivedBatch, count: int) -> Sequence[UInt8Array] | None:
    images = _array(batch, "image_raw", np.uint8, (count, None, None, 3))
    if images is not None:
        return list(images)
    if not batch.message.HasField("image_encoded"):
        return None
    encoded = batch.message.image_encoded
    shape = _item_shape(encoded, "image_encoded", count, num_axes=3)
    if encoded.codec == service_pb2.CODEC_JPEG:
        return [_jpeg(item, shape) for item in encoded.items]
    if encoded.codec == service_pb2.CODEC_PNG:
        return [_png(item, shape, "image_encoded") for item in encoded.items]
    raise _unknown_codec("image_encoded", encoded.codec)


def _masks(batch: ReceivedBatch, count: int) -> Sequence[UInt8Array] | None:
    masks = _array(batch, "mask_raw", np.uint8, (count, None, None))
    if masks is not None:
        return list(masks)
    if not batch.message.HasField("mask_encoded"):
        return None
    encoded = batch.message.mask_encoded
    shape = _item_shape(encoded, "mask_encoded", count, num_axes=2)
    if encoded.codec == service_pb2.CODEC_ZSTD:
        return [_zstd(item, shape) for item in encoded.items]
    if encoded.codec == service_pb2.CODEC_PNG:
        return [_png(item, shape, "mask_encoded") for item in encoded.items]
    raise _unknown_codec("mask_encoded", encoded.codec)


def _array(
    batch: ReceivedBatch, field: str, dtype: type[_ScalarT], shape: tuple[int | None, ...]
) -> npt.NDArray[_ScalarT] | None:
    try:
        array = batch.array(field)
    except ArrayError as error:
        raise ProtocolError(f"the server sent a broken array: {error}", field=field) from error
    if array is None:
        return None
    fits = len(shape) == array.ndim and all(want in {None, got} for want, got in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        raise ProtocolError(
            f"{field} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} "
            f"{['any' if size is None else size for size in shape]}",
            field=field,
        )
    return array


def _item_shape(encoded: service_pb2.EncodedArrays, field: str, count: int, *, num_axes: int) -> tuple[int, ...]:
    shape = tuple(encoded.shape)
    if encoded.dtype != service_pb2.DTYPE_UINT8 or len(shape) != num_axes or (num_axes == 3 and shape[2] != 3):
        raise ProtocolError(f"{field} states dtype {encoded.dtype} and shape {list(shape)} for its items", field=field)
    if len(encoded.items) != count:
        raise ProtocolError(f"{field} has {len(encoded.items)} items for {count} samples", field=field)
    return shape


def _jpeg(item: bytes, shape: tuple[int, ...]) -> UInt8Array:
    try:
        height, width, _, _ = _optional.simplejpeg.decode_jpeg_header(item)
        _check_size("image_encoded", (height, width), shape)
        image: UInt8Array = _optional.simplejpeg.decode_jpeg(item, colorspace="RGB")
    except ValueError as error:
        raise _undecodable("image_encoded", "JPEG", error) from error
    return image


def _png(item: bytes, shape: tuple[int, ...], field: str) -> UInt8Array:
    try:
        with _optional.Image.open(io.BytesIO(item), formats=("PNG",)) as picture:
            _check_size(field, (picture.height, picture.width), shape)
            if len(shape) == 3:
                return np.asarray(picture.convert("RGB"))
            # The bytes of a palette picture are the class ids; converting it would give brightness.
            if picture.mode in {"L", "P"}:
                return np.asarray(picture)
            raise ProtocolError(f"{field} holds a {picture.mode} picture, expected grey or palette", field=field)
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(field, "PNG", error) from error


def _zstd(item: bytes, shape: tuple[int, ...]) -> UInt8Array:
    num_bytes = shape[0] * shape[1]
    zstandard = _optional.zstandard
    try:
        stated = zstandard.frame_content_size(item)
        if stated not in {-1, num_bytes}:
            raise ProtocolError(
                f"mask_encoded has a frame of {stated} bytes for shape {list(shape)}", field="mask_encoded"
            )
        data = zstandard.ZstdDecompressor().decompress(item, max_output_size=num_bytes)
    except zstandard.ZstdError as error:
        raise _undecodable("mask_encoded", "Zstandard", error) from error
    if len(data) != num_bytes:
        raise ProtocolError(f"mask_encoded has {len(data)} bytes for shape {list(shape)}", field="mask_encoded")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _check_size(field: str, size: tuple[int, int], shape: tuple[int, ...]) -> None:
    if size != shape[:2]:
        raise ProtocolError(f"{field} holds a picture of {list(size)} pixels, stated were {list(shape)}", field=field)


def _undecodable(field: str, codec: str, error: Exception) -> ProtocolError:
    return ProtocolError(f"{field} holds an item that is no {codec}: {error}", field=field)


def _unknown_codec(field: str, codec: int) -> ProtocolError:
    return ProtocolError(f"{field} uses codec {codec}, which this client does not know; update labelmint", field=field)
