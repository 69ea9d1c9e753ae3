"""Sample messages as bytes, without the copies that protobuf makes of every array.

protobuf copies an array into its message and the message into its serialised form, and the same again when it is read.
Here an array goes into the final bytes at once, and out of them as a view. The bytes are those that protobuf writes, so
any client reads them: fields in ascending order, shortest varints (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from labelmint.arrays import DTYPES, array_from_tensor
from labelmint.v1 import service_pb2

__all__ = ["ReceivedBatch", "join_batch", "read_batch", "write_items", "write_tensor"]

# Any in this module: arrays of any dtype that travels.
Chunk = bytes | memoryview
"""A piece of a message: bytes, or the memory of a row-major, little-endian array."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DTYPE_NUMBERS = {dtype.str: number for number, dtype in DTYPES.items()}
_DATA, _ITEMS = service_pb2.Tensor.DATA_FIELD_NUMBER, service_pb2.EncodedArrays.ITEMS_FIELD_NUMBER
_FIELDS = service_pb2.SampleBatch.DESCRIPTOR.fields_by_number
_TENSORS: Mapping[int, str] = MappingProxyType(
    {number: field.name for number, field in _FIELDS.items() if field.message_type is service_pb2.Tensor.DESCRIPTOR}
)
"""Names of the fields of a SampleBatch that hold a Tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedBatch:
    """A message as it came.

    Attributes:
        message: All of it but its tensors.
        tensors: Its tensors by field name, without their data.
        data: Data of each tensor. The largest is a view of the received bytes; the others are copies, so that whoever
            keeps a mask does not keep the pictures.
    """

    message: service_pb2.SampleBatch
    tensors: Mapping[str, service_pb2.Tensor]
    data: Mapping[str, memoryview]

    def array(self, field: str) -> npt.NDArray[Any] | None:
        """The array of a field, read-only; None if it did not come.

        Raises:
            ArrayError: The dtype is unknown, or shape and number of bytes contradict each other.
        """
        if field not in self.tensors:
            return None
        return array_from_tensor(self.tensors[field], field=field, data=self.data[field])


def write_tensor(number: int, array: npt.NDArray[Any], *, shared_offset: int | None = None) -> list[Chunk]:
    """Write an array as a field of type Tensor.

    Args:
        number: Of the field.
        array: uint8, float16 or float32, little-endian, any shape; it is copied only if it is not row-major.
        shared_offset: Where its data lies in shared memory; None puts the data into the message.

    Returns:
        Pieces, in order.
    """
    if shared_offset is not None:
        dtype = _DTYPE_NUMBERS[array.dtype.str]
        whole = service_pb2.Tensor(dtype=dtype, shape=array.shape, shared_offset=shared_offset).SerializeToString()
        return [_prefix(number, len(whole)) + whole]
    head = service_pb2.Tensor(dtype=_DTYPE_NUMBERS[array.dtype.str], shape=array.shape).SerializeToString()
    if array.nbytes:
        head += _prefix(_DATA, array.nbytes)
    return [_prefix(number, len(head) + array.nbytes) + head, np.ascontiguousarray(array).data]


def write_items(number: int, codec: service_pb2.Codec, shape: Sequence[int], items: Sequence[bytes]) -> list[Chunk]:
    """Write encoded uint8 arrays as a field of type EncodedArrays.

    Args:
        number: Of the field.
        codec: Of the items.
        shape: Of one decoded item.
        items: Encoded arrays.

    Returns:
        Pieces, in order.
    """
    head = service_pb2.EncodedArrays(codec=codec, dtype=service_pb2.DTYPE_UINT8, shape=shape).SerializeToString()
    pieces: list[Chunk] = []
    for item in items:
        pieces += (_prefix(_ITEMS, len(item)), item)
    size = len(head) + sum(len(piece) for piece in pieces)
    return [_prefix(number, size) + head, *pieces]


def join_batch(ids: service_pb2.SampleBatch, fields: Iterable[Chunk], account: service_pb2.SampleBatch) -> bytes:
    """Join a SampleBatch from what stands before, in and after its arrays.

    Args:
        ids: Fields below those of the arrays.
        fields: Pieces of the fields of the arrays, in ascending order of their numbers.
        account: Fields above those of the arrays.

    Returns:
        The serialised message.
    """
    return b"".join([ids.SerializeToString(), *fields, account.SerializeToString()])


def read_batch(data: bytes) -> ReceivedBatch:
    """Read a SampleBatch, leaving the largest array where it is.

    Args:
        data: From the wire; nothing in it is trusted.

    Raises:
        DecodeError: It is no SampleBatch.
    """
    found: dict[str, tuple[service_pb2.Tensor, memoryview]] = {}
    others: list[memoryview] = []
    for number, whole, content in _scan(memoryview(data)):
        name = _TENSORS.get(number)
        if name is None or content is None:
            others.append(whole)
        elif name in found:
            return _read_plainly(data)  # protobuf merges what comes twice
        else:
            found[name] = _read_tensor(content)
    message = service_pb2.SampleBatch.FromString(b"".join(others))
    if any(message.WhichOneof(oneof) and f"{oneof}_raw" in found for oneof in ("image", "mask")):
        return _read_plainly(data)  # of two alternatives protobuf takes the last
    return _received(message, found)


def _received(
    message: service_pb2.SampleBatch, found: Mapping[str, tuple[service_pb2.Tensor, memoryview]]
) -> ReceivedBatch:
    largest = max((len(data) for _, data in found.values()), default=0)
    return ReceivedBatch(
        message=message,
        tensors={name: tensor for name, (tensor, _) in found.items()},
        data={name: data if len(data) == largest else memoryview(bytes(data)) for name, (_, data) in found.items()},
    )


def _read_plainly(data: bytes) -> ReceivedBatch:
    message = service_pb2.SampleBatch.FromString(data)
    tensors = {name: getattr(message, name) for name in _TENSORS.values() if message.HasField(name)}
    return _received(message, {name: (tensor, memoryview(tensor.data)) for name, tensor in tensors.items()})


def _read_tensor(content: memoryview) -> tuple[service_pb2.Tensor, memoryview]:
    data = content[:0]
    others: list[memoryview] = []
    for number, whole, inner in _scan(content):
        if number == _DATA and inner is not None:
            data = inner  # of a field that comes twice, the last counts
        else:
            others.append(whole)
    return service_pb2.Tensor.FromString(b"".join(others)), data


def _scan(view: memoryview) -> Iterable[tuple[int, memoryview, memoryview | None]]:
    """The fields of a message: number, all of its bytes, and the content of those that have a length."""
    place = 0
    while place < len(view):
        first = place
        tag, place = _read_varint(view, place)
        kind, content = tag & 7, None
        if kind == _VARINT:
            _, place = _read_varint(view, place)
        elif kind == _BYTES:
            size, start = _read_varint(view, place)
            place = start + size
            content = view[start:place]
        elif kind in {_FIXED32, _FIXED64}:
            place += 4 if kind == _FIXED32 else 8
        else:
            raise DecodeError(f"wire type {kind} at byte {first} of a message")
        if place > len(view):
            raise DecodeError(f"the field at byte {first} of a message ends after it")
        yield tag >> 3, view[first:place], content


def _read_varint(view: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(view):
            break
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise DecodeError(f"a number that does not end before byte {place} of a message")


def _prefix(number: int, size: int) -> bytes:
    """Tag and length of a field with a length."""
    return _varint(number << 3 | _BYTES) + _varint(size)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
