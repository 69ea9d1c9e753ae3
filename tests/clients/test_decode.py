from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import simplejpeg
import zstandard
from PIL import Image

from labelmint.arrays import tensor_from_array
from labelmint.batches import ReceivedBatch, read_batch
from labelmint.v1 import service_pb2
from labelmint_client import (
    Client,
    FieldNotRequestedError,
    MissingDependencyError,
    ProtocolError,
    Sample,
    _optional,
)
from labelmint_client._decode import samples_from_batch
from tests.clients.scripted_server import HEIGHT, WIDTH, ScriptedServicer, arrays_of, message_of

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def png(pixels: Pixels, mode: str) -> bytes:
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert picture.mode == mode
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def with_encoded(field: str, codec: service_pb2.Codec, encode: Callable[[Pixels], bytes]) -> service_pb2.SampleBatch:
    batch = message_of([4, 5], 6)
    name = field.removesuffix("_encoded")
    arrays = [arrays_of(index)[name] for index in (4, 5)]
    encoded = service_pb2.EncodedArrays(
        codec=codec, dtype=service_pb2.DTYPE_UINT8, shape=arrays[0].shape, items=[encode(array) for array in arrays]
    )
    getattr(batch, field).CopyFrom(encoded)
    return batch


def received(batch: service_pb2.SampleBatch) -> ReceivedBatch:
    """What a client gets of a message."""
    return read_batch(batch.SerializeToString())


def zstd(pixels: Pixels) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(pixels.tobytes())


LOSSLESS: dict[str, Callable[[], service_pb2.SampleBatch]] = {
    "image_png": lambda: with_encoded("image_encoded", service_pb2.CODEC_PNG, lambda image: png(image, "RGB")),
    "mask_png_grey": lambda: with_encoded("mask_encoded", service_pb2.CODEC_PNG, lambda mask: png(mask, "L")),
    "mask_png_palette": lambda: with_encoded("mask_encoded", service_pb2.CODEC_PNG, lambda mask: png(mask, "P")),
    "mask_zstd": lambda: with_encoded("mask_encoded", service_pb2.CODEC_ZSTD, zstd),
}


@pytest.mark.parametrize("make", LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_codecs_give_the_arrays_back(make: Callable[[], service_pb2.SampleBatch]) -> None:
    samples = samples_from_batch(received(make()))
    assert [sample.index for sample in samples] == [4, 5]
    for sample in samples:
        np.testing.assert_array_equal(sample.image, arrays_of(sample.index)["image"])
        np.testing.assert_array_equal(sample.mask, arrays_of(sample.index)["mask"])


def test_jpeg_gives_the_pixels_of_its_decoder() -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 3, dtype=np.uint8), (HEIGHT, WIDTH, 3)).copy()
    item = simplejpeg.encode_jpeg(smooth, quality=95, colorspace="RGB", colorsubsampling="444")
    [first, _] = samples_from_batch(received(with_encoded("image_encoded", service_pb2.CODEC_JPEG, lambda _: item)))
    assert first.image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(first.image.astype(int) - smooth).max() <= 4


def test_raw_arrays_are_views_of_their_message() -> None:
    first, second = samples_from_batch(received(message_of([0, 1], 2)))
    assert first.image.base is not None
    assert first.image.base is second.image.base
    assert not first.image.flags.writeable


def test_class_indices_come_with_the_samples() -> None:
    batch = message_of([0, 1], 2)
    batch.class_indices.extend([3, 0])
    assert [sample.class_index for sample in samples_from_batch(received(batch))] == [3, 0]


def truncated(batch: service_pb2.SampleBatch) -> None:
    batch.image_raw.data = batch.image_raw.data[:-1]


def wrong_count(batch: service_pb2.SampleBatch) -> None:
    batch.mask_raw.CopyFrom(tensor_from_array(np.zeros((3, HEIGHT, WIDTH), np.uint8)))


def wrong_dtype(batch: service_pb2.SampleBatch) -> None:
    batch.keypoints.CopyFrom(tensor_from_array(np.zeros((2, 3, 4), np.float16)))


def no_score(batch: service_pb2.SampleBatch) -> None:
    batch.ClearField("uncertainty")


def wrong_classes(batch: service_pb2.SampleBatch) -> None:
    batch.class_indices.append(1)


def item_missing(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(LOSSLESS["mask_zstd"]())
    del batch.mask_encoded.items[1]


def unknown_codec(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(LOSSLESS["mask_zstd"]())
    batch.mask_encoded.codec = service_pb2.CODEC_JPEG


def huge_frame(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(LOSSLESS["mask_zstd"]())
    batch.mask_encoded.items[0] = zstandard.ZstdCompressor().compress(bytes(10_000_000))


def garbage_zstd(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(LOSSLESS["mask_zstd"]())
    batch.mask_encoded.items[0] = b"garbage"


def short_png(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(LOSSLESS["image_png"]())
    batch.image_encoded.items[0] = batch.image_encoded.items[0][:50]


def other_size_png(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(LOSSLESS["image_png"]())
    batch.image_encoded.items[0] = png(np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8), "RGB")


def colour_mask(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(LOSSLESS["mask_png_grey"]())
    batch.mask_encoded.items[0] = png(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "RGB")


def garbage_jpeg(batch: service_pb2.SampleBatch) -> None:
    batch.CopyFrom(with_encoded("image_encoded", service_pb2.CODEC_JPEG, lambda _: b"garbage"))


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (truncated, "image_raw"),
        (wrong_count, "mask_raw"),
        (wrong_dtype, "keypoints"),
        (no_score, "uncertainty"),
        (wrong_classes, "class_indices"),
        (item_missing, "mask_encoded"),
        (unknown_codec, "mask_encoded"),
        (huge_frame, "mask_encoded"),
        (garbage_zstd, "mask_encoded"),
        (short_png, "image_encoded"),
        (other_size_png, "image_encoded"),
        (colour_mask, "mask_encoded"),
        (garbage_jpeg, "image_encoded"),
    ],
)
def test_broken_message_is_refused_by_field(spoil: Callable[[service_pb2.SampleBatch], None], field: str) -> None:
    batch = message_of([0, 1], 2)
    spoil(batch)
    with pytest.raises(ProtocolError) as caught:
        samples_from_batch(received(batch))
    assert caught.value.field == field


def test_undecodable_message_is_asked_for_again(client: Client, servicer: ScriptedServicer) -> None:
    def spoil_once(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
        if (call, number) == (0, 1):
            truncated(batch)
        return batch

    servicer.rewrite = spoil_once
    stream = client.generate("m", seed=1, count=6)
    first = [next(stream), next(stream)]
    with pytest.raises(ProtocolError):
        next(stream)
    assert [sample.index for sample in [*first, *stream]] == list(range(6))


@pytest.mark.parametrize(("module", "codec"), [("PIL.Image", "image_png"), ("zstandard", "mask_zstd")])
def test_missing_codec_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, module: str, codec: str) -> None:
    batch = LOSSLESS[codec]()
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(vars(_optional), module.rpartition(".")[2], raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'labelmint\[cli\]'"):
        samples_from_batch(received(batch))


def test_array_that_was_not_requested_says_how_to_get_it() -> None:
    sample = Sample(index=3, uncertainty=0.5)
    with pytest.raises(FieldNotRequestedError, match="add 'z' to fields") as caught:
        _ = sample.z
    assert caught.value.field == "z"
    assert not hasattr(sample, "image")
    assert not sample.has("image")


def test_sample_is_immutable_and_survives_pickling() -> None:
    [sample] = samples_from_batch(received(message_of([7], 8)))
    with pytest.raises(AttributeError, match="immutable"):
        sample.index = 8
    with pytest.raises(AttributeError, match="immutable"):
        del sample.index
    copy = pickle.loads(pickle.dumps(sample))
    assert (copy.index, copy.uncertainty) == (sample.index, sample.uncertainty)
    np.testing.assert_array_equal(copy.image, sample.image)
    assert repr(copy) == repr(sample)
    assert "image=uint8[6, 5, 3]" in repr(copy)
