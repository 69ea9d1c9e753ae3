"""Encodings: what is decoded is what RAW carries, or close to it where the codec loses."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simplejpeg
import zstandard
from PIL import Image

from labelmint.addresses import latents
from labelmint.arrays import tensor_from_array
from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint.v1.service_pb2 import LabelOptions, LabelRequest, OutputOptions
from tests.service.calls import TIMEOUT_S, Collected, collect, expect_failure, make_request
from tests.serving import serving
from tests.tiny_bundle import write_tiny_bundle


def generate(stub: service_pb2_grpc.LabelMintStub, **output: Any) -> Collected:  # Any: fields of every type
    return collect(stub.Generate(make_request(output=OutputOptions(**output), max_accepted=7), timeout=TIMEOUT_S))


@pytest.fixture(scope="module")
def raw(stub: service_pb2_grpc.LabelMintStub) -> Collected:
    return generate(stub)


def items_of(samples: Collected, field: str) -> list[bytes]:
    return [item for batch in samples.batches for item in getattr(batch, field).items]


def test_png_images_are_the_raw_ones(stub: service_pb2_grpc.LabelMintStub, raw: Collected) -> None:
    samples = generate(stub, image_codec="CODEC_PNG")
    encoded = samples.batches[0].image_encoded

    assert (encoded.codec, encoded.dtype) == (service_pb2.CODEC_PNG, service_pb2.DTYPE_UINT8)
    assert list(encoded.shape) == [16, 16, 3]
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(item))) for item in items_of(samples, "image_encoded")])
    np.testing.assert_array_equal(decoded, raw.arrays["image_raw"])
    np.testing.assert_array_equal(samples.arrays["mask_raw"], raw.arrays["mask_raw"])


@pytest.mark.parametrize(("subsampling", "expected"), [(0, "444"), (1, "444"), (2, "422"), (3, "420")])
def test_jpeg_has_the_quality_and_subsampling_asked_for(
    stub: service_pb2_grpc.LabelMintStub,
    raw: Collected,
    subsampling: int,
    expected: str,
) -> None:
    samples = generate(stub, image_codec="CODEC_JPEG", jpeg_quality=100, jpeg_subsampling=subsampling)
    items = items_of(samples, "image_encoded")

    assert len(items) == 7
    assert {simplejpeg.decode_jpeg_header(item)[3] for item in items} == {expected}
    decoded = np.stack([simplejpeg.decode_jpeg(item) for item in items])
    error = np.abs(decoded.astype(int) - raw.arrays["image_raw"]).mean()
    assert error < (2.0 if expected == "444" else 30.0)


def test_lower_jpeg_quality_is_smaller(stub: service_pb2_grpc.LabelMintStub) -> None:
    sizes = [
        sum(map(len, items_of(generate(stub, image_codec="CODEC_JPEG", jpeg_quality=quality), "image_encoded")))
        for quality in (10, 95, 100)
    ]
    default = sum(map(len, items_of(generate(stub, image_codec="CODEC_JPEG"), "image_encoded")))

    assert sizes[0] < sizes[1] < sizes[2]
    assert default == sizes[1]


def test_zstd_masks_are_the_raw_ones(stub: service_pb2_grpc.LabelMintStub, raw: Collected) -> None:
    samples = generate(stub, mask_codec="CODEC_ZSTD")
    decoded = [
        np.frombuffer(zstandard.ZstdDecompressor().decompress(item), dtype=np.uint8).reshape(16, 16)
        for item in items_of(samples, "mask_encoded")
    ]

    assert list(samples.batches[0].mask_encoded.shape) == [16, 16]
    np.testing.assert_array_equal(np.stack(decoded), raw.arrays["mask_raw"])


def test_png_masks_are_the_raw_ones_with_the_palette_of_the_manifest(
    stub: service_pb2_grpc.LabelMintStub,
    raw: Collected,
) -> None:
    classes = stub.GetModel(service_pb2.GetModelRequest(model="tiny")).manifest.classes
    pictures = [
        Image.open(io.BytesIO(item)) for item in items_of(generate(stub, mask_codec="CODEC_PNG"), "mask_encoded")
    ]

    assert {picture.mode for picture in pictures} == {"P"}
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in pictures]), raw.arrays["mask_raw"])
    for picture in pictures:
        palette = picture.getpalette()
        assert palette is not None
        assert palette[: 3 * len(classes)] == [value for c in classes for value in (c.red, c.green, c.blue)]


def test_encoded_filtered_streams_carry_the_right_samples(stub: service_pb2_grpc.LabelMintStub) -> None:
    """Rows that the filter removes must not shift the encoded ones."""
    keep = service_pb2.Filter(max_uncertainty_quantile=0.5)
    encoded, raw = (
        collect(stub.Generate(make_request(output=output, filter=keep, max_accepted=20), timeout=TIMEOUT_S))
        for output in (OutputOptions(image_codec="CODEC_PNG", mask_codec="CODEC_ZSTD"), OutputOptions())
    )

    assert encoded.indices == raw.indices
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(item))) for item in items_of(encoded, "image_encoded")])
    np.testing.assert_array_equal(decoded, raw.arrays["image_raw"])
    masks = [zstandard.ZstdDecompressor().decompress(item) for item in items_of(encoded, "mask_encoded")]
    assert b"".join(masks) == raw.arrays["mask_raw"].tobytes()


@pytest.fixture(scope="module")
def large_stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[service_pb2_grpc.LabelMintStub]:
    """512 x 512: a RAW sample takes 1 MiB."""
    bundle = write_tiny_bundle(
        tmp_path_factory.mktemp("large") / "bundle",
        name="large",
        image_size=512,
        num_calibration_samples=4,
    )
    with serving([bundle]) as running:
        yield running.stub()


@pytest.mark.parametrize(("size", "most"), [(1_100_000, 1), (2_200_000, 2), (4_200_000, 4)])
def test_messages_are_split_to_the_size_asked_for(
    large_stub: service_pb2_grpc.LabelMintStub,
    size: int,
    most: int,
) -> None:
    request = make_request(model="large", max_accepted=8, output=OutputOptions(max_message_bytes=size))
    samples = collect(large_stub.Generate(request, timeout=TIMEOUT_S))

    assert max(batch.ByteSize() for batch in samples.batches) <= size
    assert max(len(batch.indices) for batch in samples.batches) == most
    assert samples.indices == list(range(8))
    assert sum(batch.num_scanned for batch in samples.batches) == 8
    assert [batch.next_index for batch in samples.batches] == [batch.indices[-1] + 1 for batch in samples.batches]


def test_default_message_is_at_most_4_mib(large_stub: service_pb2_grpc.LabelMintStub) -> None:
    samples = collect(large_stub.Generate(make_request(model="large", max_accepted=4), timeout=TIMEOUT_S))

    assert [len(batch.indices) for batch in samples.batches] == [3, 1]
    assert max(batch.ByteSize() for batch in samples.batches) <= 4 * 2**20


def test_raw_sample_that_does_not_fit_is_refused_before_work_with_the_bytes_needed(
    large_stub: service_pb2_grpc.LabelMintStub,
) -> None:
    request = make_request(model="large", output=OutputOptions(max_message_bytes=200_000))
    failure = expect_failure(large_stub.Generate(request, timeout=TIMEOUT_S))

    assert (failure.code, failure.detail and failure.detail.field) == ("INVALID_ARGUMENT", "output.max_message_bytes")
    needed = int(failure.text.split("needs ")[1].split()[0])
    assert 2**20 < needed < 2**20 + 2048
    enough = make_request(model="large", output=OutputOptions(max_message_bytes=needed))
    assert len(collect(large_stub.Generate(enough, timeout=TIMEOUT_S)).indices) == 5


def test_encoded_sample_that_does_not_fit_ends_the_stream_with_the_bytes_needed(
    large_stub: service_pb2_grpc.LabelMintStub,
) -> None:
    png = OutputOptions(fields=[service_pb2.SAMPLE_FIELD_IMAGE], image_codec="CODEC_PNG")
    everything = collect(
        large_stub.Generate(make_request(model="large", max_accepted=12, output=png), timeout=TIMEOUT_S),
    )
    sizes = [len(item) for item in items_of(everything, "image_encoded")]
    largest = sizes.index(max(sizes))
    png.max_message_bytes = sizes[largest] + 1000  # the envelope takes a little more
    failure = expect_failure(
        large_stub.Generate(make_request(model="large", max_accepted=12, output=png), timeout=TIMEOUT_S),
    )

    assert (failure.code, failure.detail and failure.detail.field) == ("INVALID_ARGUMENT", "output.max_message_bytes")
    assert failure.detail is not None
    assert failure.detail.next_index == largest // 4 * 4
    assert [index for batch in failure.batches for index in batch.indices] == list(range(failure.detail.next_index))
    assert int(failure.text.split("needs ")[1].split()[0]) > png.max_message_bytes


def test_encoded_sample_that_does_not_fit_names_the_field_of_a_label_call(
    large_stub: service_pb2_grpc.LabelMintStub,
) -> None:
    png = OutputOptions(fields=[service_pb2.SAMPLE_FIELD_IMAGE], image_codec="CODEC_PNG", max_message_bytes=2**16)
    z = tensor_from_array(latents(7, np.arange(1, dtype=np.uint64), 8))
    request = LabelRequest(options=LabelOptions(model="large", output=png), z=z)
    failure = expect_failure(large_stub.Label(iter([request]), timeout=TIMEOUT_S))

    assert failure.detail is not None
    assert failure.detail.field == "options.output.max_message_bytes"
    assert failure.text.startswith("options.output.max_message_bytes is 65536")
