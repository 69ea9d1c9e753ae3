"""Hostile requests: messages made from the descriptors of the contract, and bytes that were messages once.

A case is a function of its number alone, so that a failing one is made again from it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from labelmint.arrays import tensor_from_array
from labelmint.v1 import service_pb2
from tests.tiny_graphs import NUM_WS, W_DIM, Z_DIM

SERVICE = service_pb2.DESCRIPTOR.services_by_name["LabelMint"]
REQUESTS: Mapping[str, type[Message]] = {
    method.name: getattr(service_pb2, method.input_type.name) for method in SERVICE.methods
}
"""The request message of each method."""
MODELS = ("tiny", "classy", "poisoned")
C_DIM = 3
"""Of the model `classy`."""

Field = Any  # the stubs of protobuf know two kinds of descriptors
_MAX_ITEMS, _MANY_ITEMS = 4, 5_000
_MAX_DEPTH = 4
_FLOATS = (0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 1e-45, 3.4e38, -3.4e38, float("nan"), float("inf"), -float("inf"))
_TEXTS = ("", "tiny", "TINY", "../tiny", "a\x00b", "\x7f", "ü" * 40, "\U0010ffff", "%s%n", "x" * 9_000, "\n" * 300)
_ENUMS = (-1, -(2**31), 2**31 - 1, 6, 99)
# By the name of the field: values near the edges of what is allowed, which extremes of the type would seldom meet.
_NEAR: Mapping[str, Sequence[Any]] = {  # Any: values of every type
    "model": MODELS,
    "shard_index": (0, 1, 2, 3),
    "num_shards": (0, 1, 2, 3),
    "start_index": (0, 1, 2**64 - 9),
    "end_index": (0, 1, 30, 2**64 - 1),
    "max_accepted": (0, 1, 2, 9),
    "max_scanned": (0, 1, 7, 64),
    "class_index": (0, C_DIM - 1, C_DIM),
    "class_name": ("background", "disc", "ring", "arc"),
    "min_fraction": (1e-6, 0.05, 0.5, 1.0),
    "max_uncertainty": (0.0, 0.01, 1.0),
    "max_uncertainty_quantile": (1e-6, 0.5, 1.0),
    "jpeg_quality": (0, 1, 100, 101),
    "max_message_bytes": (0, 65_535, 65_536, 2**28, 2**28 + 1),
    "name": tuple(f"labelmint-{digit * 32}" for digit in "0123"),
    "num_bytes": (0, 1, 64, 2**20, 2**63),
    "shape": (0, 1, 2, Z_DIM, NUM_WS, 2**63),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call.

    Attributes:
        number: Of the case.
        method: Of the service.
        payloads: Its messages, serialised or not even that.
    """

    number: int
    method: str
    payloads: tuple[bytes, ...]


def schema_case(number: int) -> Case:
    """A call whose messages fit the schema, if nothing else."""
    rng = random.Random(f"schema {number}")
    method = rng.choices(("Generate", "Label", "GetModel", "ListModels"), (60, 30, 8, 2))[0]
    return Case(number=number, method=method, payloads=tuple(_payloads(method, rng)))


def raw_case(number: int) -> Case:
    """A call whose messages were damaged as bytes, or never were any."""
    rng = random.Random(f"raw {number}")
    method = rng.choices(("Generate", "Label", "GetModel", "ListModels"), (60, 30, 8, 2))[0]
    payloads = [damaged(payload, rng) for payload in _payloads(method, rng)]
    return Case(number=number, method=method, payloads=tuple(payloads))


def _payloads(method: str, rng: random.Random) -> list[bytes]:
    count = rng.choice((1, 1, 2, 3)) if method == "Label" else 1
    messages = [_message(method, rng, is_first=place == 0) for place in range(count)]
    return [message.SerializeToString() + _surprise(rng) for message in messages]


def _message(method: str, rng: random.Random, *, is_first: bool) -> Message:
    """A sound request with some fields changed; now and then one that is random altogether."""
    message = REQUESTS[method]()
    if rng.random() < 0.1:
        _fill(message, rng, depth=0)
        return message
    if isinstance(message, service_pb2.GenerateRequest):
        _make_sound_generate(message, rng)
    elif isinstance(message, service_pb2.LabelRequest):
        _make_sound_label(message, rng, is_first=is_first)
    elif isinstance(message, service_pb2.GetModelRequest):
        message.model = rng.choice(MODELS)
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3)) if message.DESCRIPTOR.fields else 0):
        _change(message, rng)
    return message


def _make_sound_generate(message: service_pb2.GenerateRequest, rng: random.Random) -> None:
    message.model = rng.choices(MODELS, (6, 3, 1))[0]
    message.seed = rng.choice((0, 7, 2**64 - 1, rng.getrandbits(64)))
    message.max_accepted = rng.randint(1, 12)
    if rng.random() < 0.3:
        message.num_shards = rng.randint(1, 5)
        message.shard_index = rng.randrange(message.num_shards)
    if rng.random() < 0.3:
        message.start_index = rng.choice((1, 10, 2**63, 2**64 - 5))
    if rng.random() < 0.3:
        message.filter.max_uncertainty_quantile = rng.choice((0.3, 0.9, 1.0))
        message.max_scanned = rng.randint(1, 30)
    if rng.random() < 0.3:
        message.truncation_psi = rng.choice((0.0, 0.5, 1.0))
    _make_sound_output(message.output, rng)


def _make_sound_label(message: service_pb2.LabelRequest, rng: random.Random, *, is_first: bool) -> None:
    if is_first:
        message.options.model = rng.choice(MODELS)
        _make_sound_output(message.options.output, rng)
    numbers = np.random.default_rng(rng.getrandbits(32))
    count = rng.randint(0, 5)
    kind, tail = rng.choice((("z", (Z_DIM,)), ("w", (W_DIM,)), ("w_plus", (NUM_WS, W_DIM))))
    array = numbers.standard_normal((count, *tail)).astype(np.float32)
    if array.size and rng.random() < 0.2:
        array.flat[numbers.integers(array.size)] = rng.choice(_FLOATS)
    getattr(message, kind).CopyFrom(tensor_from_array(array))
    if kind == "z" and message.options.model == "classy":
        message.class_indices.extend(rng.randrange(C_DIM) for _ in range(count))


def _make_sound_output(output: service_pb2.OutputOptions, rng: random.Random) -> None:
    if rng.random() < 0.3:
        fields = (
            service_pb2.SAMPLE_FIELD_IMAGE,
            service_pb2.SAMPLE_FIELD_MASK,
            service_pb2.SAMPLE_FIELD_UNCERTAINTY_MAP,
        )
        output.fields.extend(rng.sample(fields, rng.randint(1, len(fields))))
    if rng.random() < 0.3:
        output.image_codec = rng.choice((service_pb2.CODEC_JPEG, service_pb2.CODEC_PNG, service_pb2.CODEC_RAW))
        output.mask_codec = rng.choice((service_pb2.CODEC_ZSTD, service_pb2.CODEC_PNG, service_pb2.CODEC_RAW))
    if rng.random() < 0.05:
        output.shared_memory.name, output.shared_memory.num_bytes = f"labelmint-{'0' * 32}", 2**20


def _change(message: Message, rng: random.Random) -> None:
    """Set, clear or double a field somewhere in a message."""
    field: Field = rng.choice([*message.DESCRIPTOR.fields])
    if field.message_type is not None and not field.is_repeated and rng.random() < 0.7:
        _change(getattr(message, field.name), rng)
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    else:
        _set(message, field, rng, depth=0)


def _fill(message: Message, rng: random.Random, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5:
            _set(message, field, rng, depth)


def _set(message: Message, field: Field, rng: random.Random, depth: int) -> None:
    if field.is_repeated:
        count = _MANY_ITEMS if rng.random() < 0.03 else rng.randint(0, _MAX_ITEMS)
        values = getattr(message, field.name)
        if field.message_type is None:
            values.extend(_value(field, rng) for _ in range(count))
        elif depth < _MAX_DEPTH:
            for _ in range(count):
                _fill(values.add(), rng, depth + 1)
    elif field.message_type is None:
        setattr(message, field.name, _value(field, rng))
    else:
        child = getattr(message, field.name)
        child.SetInParent()
        if depth < _MAX_DEPTH:
            _fill(child, rng, depth + 1)


def _value(field: Field, rng: random.Random) -> Any:  # Any: a value of the field's type
    near = _NEAR.get(field.name)
    if near is not None and rng.random() < 0.6:
        return rng.choice(near)
    return _EXTREMES[field.type](field, rng)


def _enum(field: Field, rng: random.Random) -> int:
    assert field.enum_type is not None
    known: list[int] = [value.number for value in field.enum_type.values]
    return rng.choice(known if rng.random() < 0.7 else _ENUMS)


def _whole(bits: int) -> Callable[[Field, random.Random], int]:
    def choose(_field: Field, rng: random.Random) -> int:
        return rng.choice((0, 1, 2**bits - 1, 2 ** (bits - 1), rng.getrandbits(bits), rng.getrandbits(5)))

    return choose


_EXTREMES: Mapping[int, Callable[[Field, random.Random], Any]] = {  # Any: as `_value`
    FieldDescriptor.TYPE_UINT64: _whole(64),
    FieldDescriptor.TYPE_UINT32: _whole(32),
    FieldDescriptor.TYPE_FLOAT: lambda _field, rng: rng.choice((*_FLOATS, rng.uniform(-2, 2))),
    FieldDescriptor.TYPE_BOOL: lambda _field, rng: rng.random() < 0.5,
    FieldDescriptor.TYPE_STRING: lambda _field, rng: rng.choice(_TEXTS),
    FieldDescriptor.TYPE_BYTES: lambda _field, rng: rng.randbytes(rng.choice((0, 1, 4, 32, 192, 4_096))),
    FieldDescriptor.TYPE_ENUM: _enum,
}


# --- bytes ------------------------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _surprise(rng: random.Random) -> bytes:
    """Now and then a field that the schema does not have, whole; readers have to ignore it."""
    if rng.random() >= 0.1:
        return b""
    number = rng.choice((100, 19_000, 2**29 - 1))
    kind = rng.randrange(5)
    tag = _varint(number << 3 | (0, 1, 2, 5, 3)[kind])
    group = _varint(number << 3 | 4)
    return tag + (_varint(2**64 - 1), rng.randbytes(8), b"\x03abc", rng.randbytes(4), group)[kind]


def damaged(payload: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.choice((0, 1, 2, 7, 64, 1_000)))
    data = bytearray(payload)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        _DAMAGES[rng.randrange(len(_DAMAGES))](data, at, rng)
    if rng.random() < 0.003:
        data += bytes(300_000)  # more than the server accepts
    return bytes(data)


def _flip(data: bytearray, at: int, rng: random.Random) -> None:
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _lie(data: bytearray, at: int, rng: random.Random) -> None:
    """A number or a length that is not true: up to ten bytes, and one too many."""
    data[at : at + 1] = rng.choice((b"\x7f", b"\xff\xff\xff\xff\x07", b"\xff" * 9 + b"\x01", b"\xff" * 11, b"\x80\x00"))


def _repeat(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = data[at : at + rng.randint(1, 60)] * rng.choice((1, 2, 50))


def _nest(data: bytearray, at: int, rng: random.Random) -> None:
    """Groups or messages within each other, deeper than a reader may follow."""
    depth = rng.choice((3, 90, 101, 2_000))
    data[at:at] = bytes([rng.choice((0x0B, 0x6A, 0x72))]) * depth


def _splice(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = rng.choice((rng.randbytes(rng.randint(1, 8)), struct.pack("<f", rng.choice(_FLOATS)), b"\xc3\x28"))


_DAMAGES: Sequence[Callable[[bytearray, int, random.Random], None]] = (
    _flip,
    _lie,
    _repeat,
    _nest,
    _splice,
    lambda data, at, rng: data.__delitem__(slice(at, at + rng.randint(1, 9))),
    lambda data, at, _rng: data.__delitem__(slice(at, None)),
    lambda data, _at, _rng: data.extend(bytes(data)),  # a message twice is one message: the latter part counts
)
