"""labelmint.batches against protobuf, which defines what the bytes of a message are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmint.arrays import array_from_tensor, tensor_from_array
from labelmint.batches import Chunk, join_batch, read_batch, write_items, write_tensor
from labelmint.v1 import service_pb2

Batch = service_pb2.SampleBatch
Array = np.ndarray[Any, Any]  # of any dtype that travels

TENSORS = ("image_raw", "mask_raw", "keypoints", "uncertainty_map", "uncertainty", "z")
ITEMS = ("image_encoded", "mask_encoded")
NUMBERS = {field.name: field.number for field in Batch.DESCRIPTOR.fields}

dtypes = st.sampled_from(["<u1", "<f2", "<f4"])
shapes = st.lists(st.integers(0, 40), max_size=4).filter(lambda shape: np.prod(shape, initial=1) <= 4096)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    shape, dtype = draw(shapes), np.dtype(draw(dtypes))
    size = int(np.prod(shape, initial=1)) * dtype.itemsize
    data = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, size, dtype=np.uint8)
    array = data.view(dtype).reshape(shape)
    return np.asfortranarray(array) if draw(st.booleans()) else array


@st.composite
def messages(draw: st.DrawFn) -> tuple[Batch, Batch, dict[str, Any]]:
    """What stands before, after and in the fields of arrays; of image and mask one alternative each."""
    ids = Batch(indices=draw(st.lists(st.integers(0, 2**64 - 1), max_size=5)), class_indices=draw(st.lists(st.just(7))))
    account = Batch(next_index=draw(st.integers(0, 2**64 - 1)), digest=draw(st.text(max_size=9)), exhausted=True)
    account.times.compute_ns = draw(st.integers(0, 2**40))
    names = [name for name in (*TENSORS, *ITEMS) if draw(st.booleans())]
    fields: dict[str, Any] = {}
    for name in sorted(names, key=NUMBERS.__getitem__):
        if not name.endswith("_encoded"):
            fields[name] = draw(arrays())
        elif name.replace("encoded", "raw") not in fields:
            fields[name] = draw(st.lists(st.binary(max_size=300), max_size=4))
    return ids, account, fields


def by_protobuf(ids: Batch, account: Batch, fields: dict[str, Any]) -> Batch:
    message = Batch()
    message.MergeFrom(ids)
    message.MergeFrom(account)
    for name, value in fields.items():
        if isinstance(value, list):
            encoded = service_pb2.EncodedArrays(
                codec=service_pb2.CODEC_PNG, dtype=service_pb2.DTYPE_UINT8, shape=[3, 4], items=value
            )
            getattr(message, name).CopyFrom(encoded)
        else:
            getattr(message, name).CopyFrom(tensor_from_array(value))
    return message


def by_hand(ids: Batch, account: Batch, fields: dict[str, Any]) -> bytes:
    chunks: list[Chunk] = []
    for name, value in fields.items():
        if isinstance(value, list):
            chunks += write_items(NUMBERS[name], service_pb2.CODEC_PNG, (3, 4), value)
        else:
            chunks += write_tensor(NUMBERS[name], value)
    return join_batch(ids, chunks, account)


@settings(max_examples=150, deadline=None)
@given(messages())
def test_bytes_are_those_of_protobuf(parts: tuple[Batch, Batch, dict[str, Any]]) -> None:
    assert by_hand(*parts) == by_protobuf(*parts).SerializeToString(deterministic=True)


@settings(max_examples=150, deadline=None)
@given(messages())
def test_reading_gives_what_protobuf_reads(parts: tuple[Batch, Batch, dict[str, Any]]) -> None:
    message = by_protobuf(*parts)
    got = read_batch(message.SerializeToString())
    for name in TENSORS:
        array = got.array(name)
        assert (array is not None) == message.HasField(name)
        if array is not None:
            expected = array_from_tensor(getattr(message, name), field=name)
            assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
            message.ClearField(name)
    assert got.message == message


def test_largest_array_is_a_view_and_the_others_do_not_keep_it_alive() -> None:
    message = by_protobuf(
        Batch(), Batch(), {"image_raw": np.ones((2, 8, 8, 3), np.uint8), "mask_raw": np.ones(9, "u1")}
    )
    data = message.SerializeToString()
    got = read_batch(data)
    image, mask = got.array("image_raw"), got.array("mask_raw")
    assert image is not None
    assert mask is not None
    whole = np.frombuffer(data, np.uint8)
    assert np.shares_memory(image, whole)
    assert not np.shares_memory(mask, whole)
    assert not image.flags.writeable


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param({"image_raw": np.zeros((1, 2, 2, 3), np.uint8)}, id="the same field again"),
        pytest.param({"image_encoded": [b"picture"]}, id="the other alternative"),
    ],
)
def test_what_comes_twice_is_read_as_protobuf_reads_it(extra: dict[str, Any]) -> None:
    first = by_protobuf(Batch(indices=[1]), Batch(), {"image_raw": np.ones((1, 4, 4, 3), np.uint8)})
    data = first.SerializeToString() + by_protobuf(Batch(), Batch(), extra).SerializeToString()
    expected, got = Batch.FromString(data), read_batch(data)
    assert got.message.HasField("image_encoded") == expected.HasField("image_encoded")
    assert ("image_raw" in got.tensors) == expected.HasField("image_raw")
    if "image_raw" in got.tensors:
        assert bytes(got.data["image_raw"]) == expected.image_raw.data
        assert list(got.tensors["image_raw"].shape) == list(expected.image_raw.shape)


def test_unknown_fields_are_passed_over() -> None:
    data = by_protobuf(Batch(indices=[3]), Batch(next_index=4), {"uncertainty": np.ones(1, "<f4")}).SerializeToString()
    # A varint, eight bytes, four bytes and a length, in fields that no release has had.
    unknown = b"\xf8\x07\x96\x01" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4) + b"\xfa\x07\x02ab"
    got = read_batch(unknown + data)
    assert (list(got.message.indices), got.message.next_index, list(got.tensors)) == ([3], 4, ["uncertainty"])


@settings(max_examples=300, deadline=None)
@given(messages(), st.data())
def test_damaged_bytes_are_refused_or_read_as_protobuf_reads_them(
    parts: tuple[Batch, Batch, dict[str, Any]], data: st.DataObject
) -> None:
    whole = bytearray(by_hand(*parts) + b"\x58\x01")
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        expected = Batch.FromString(damaged)
    except DecodeError:
        expected = None
    try:
        got = read_batch(damaged)
    except DecodeError:
        return  # also for groups, which proto3 has none of
    assert expected is not None
    assert list(got.message.indices) == list(expected.indices)
    for name, data_of_tensor in got.data.items():
        assert bytes(data_of_tensor) == getattr(expected, name).data
