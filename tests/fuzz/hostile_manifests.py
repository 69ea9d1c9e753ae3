"""Hostile manifests: a sound one with fields removed, retyped, made extreme, doubled or nested, or its text damaged."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from labelmint.bundle import manifest_digest, manifest_from_json
from labelmint.errors import BundleError
from labelmint.v1 import bundle_pb2

_WRONG_TYPES: Sequence[Any] = (None, True, 0, -1, 1.5, "", "text", [], {}, [None], {"a": 1}, [[]], "1", "true")
_NUMBERS: Sequence[Any] = (
    *(0, 1, -1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e-320, 3.5e38, 1e308),
    *("0", "-1", "18446744073709551616", "1e3", " 1", "NaN", "-Infinity", "0x10", "1_000", "٣"),
)
_TEXTS: Sequence[str] = (
    *("", "\x00", "a\x00b", "\ud800", "ü", "\u202e", "x" * 5_000, "x" * 100_000, "NaN", "manifest.json", "CON", "."),
    *("../x", "/etc/passwd", "..", "weights/../../x", "weights//data.bin", "C:\\x", "\\\\host\\x", "weights/data.bin/"),
    *("./weights/data.bin", "weights/./data.bin", "file:///etc/passwd", "weights/DATA.bin", "nul.onnx", "a" * 300),
)
_DEPTHS = (5, 17, 100)


def hostile_manifest(original: bytes, number: int) -> bytes:
    """The text of `manifest.json`; a function of the original and the number alone."""
    rng = random.Random(f"manifest {number}")
    document = json.loads(original)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _CHANGES[rng.randrange(len(_CHANGES))](document, rng)
    text = json.dumps(document).encode()
    if rng.random() < 0.7:
        text = _with_right_digest(document, text)
    if rng.random() < 0.2:
        text = _TEXT_CHANGES[rng.randrange(len(_TEXT_CHANGES))](text, rng)
    return text


def _with_right_digest(document: dict[str, Any], text: bytes) -> bytes:  # Any: a JSON document
    """So that nothing but the changes stands in the way."""
    try:
        document["digest"] = manifest_digest(manifest_from_json(text))
    except BundleError:
        return text
    return json.dumps(document).encode()


# --- changes of the document (Any: JSON) ------------------------------------------------------------------------------


def _places(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of each value of a document."""
    if path:
        yield path
    items: Any = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from _places(value, (*path, key))


def _place(document: dict[str, Any], rng: random.Random, kind: type | tuple[type, ...] = object) -> tuple[Any, Any]:
    """A container within a document, and a key of it whose value is of a kind."""
    chosen: tuple[Any, Any] = document, "name"
    found = 0
    for path in _places(document):
        container: Any = document
        for step in path[:-1]:
            container = container[step]
        value = container[path[-1]]
        if isinstance(value, kind) and not isinstance(value, bool):
            found += 1
            if not rng.randrange(found):  # each that was found is as likely as the others
                chosen = container, path[-1]
    return chosen


def _remove(document: dict[str, Any], rng: random.Random) -> None:
    container, key = _place(document, rng)
    if isinstance(container, list) or key in container:
        del container[key]


def _retype(document: dict[str, Any], rng: random.Random) -> None:
    container, key = _place(document, rng)
    container[key] = rng.choice(_WRONG_TYPES)


def _make_extreme(document: dict[str, Any], rng: random.Random) -> None:
    kind, values = rng.choice(((str, _TEXTS), (str, _TEXTS), ((int, float), _NUMBERS), (object, _NUMBERS)))
    container, key = _place(document, rng, kind)
    container[key] = rng.choice(values)


def _nest(document: dict[str, Any], rng: random.Random) -> None:
    container, key = _place(document, rng)
    value: Any = container[key] if isinstance(container, list) or key in container else None
    for _ in range(rng.choice(_DEPTHS)):
        value = [value] if rng.random() < 0.5 else {"name": value}
    container[key] = value


def _multiply(document: dict[str, Any], rng: random.Random) -> None:
    """The same items again and again, thousands now and then."""
    key = rng.choice([key for key, value in document.items() if isinstance(value, list) and value] or ["taps"])
    items = document.get(key) or [{}]
    document[key] = (items * 5_000)[: rng.choices((2, 50, 5_000), (6, 6, 1))[0]]


def _add(document: dict[str, Any], rng: random.Random) -> None:
    """A field that the schema has, under either of its names, or that it does not have."""
    descriptor: Any = bundle_pb2.Manifest.DESCRIPTOR  # Any: the stubs know two kinds of these
    container: Any = document
    while rng.random() < 0.5:
        inner = [f for f in descriptor.fields if f.message_type and isinstance(container.get(f.name), dict)]
        if not inner:
            break
        field = rng.choice(inner)
        container, descriptor = container[field.name], field.message_type
    if not descriptor.fields or rng.random() < 0.2:
        container[rng.choice(("surprise", "", "__proto__", "@type", "x" * 5_000))] = rng.choice(_WRONG_TYPES)
        return
    field = rng.choice(descriptor.fields)
    name = field.name if rng.random() < 0.7 else field.json_name
    container[name] = rng.choice((*_WRONG_TYPES, *_NUMBERS, *_TEXTS))


def _tune(document: dict[str, Any], rng: random.Random) -> None:
    """A number beside the right one, which breaks what the fields say of each other, if anything."""
    container, key = _place(document, rng, (int, float))
    value = container.get(key) if isinstance(container, dict) else container[key]
    if isinstance(value, (int, float)):
        container[key] = rng.choice((value + 1, value - 1, value * 2, -value, 0))


_CHANGES: Sequence[Callable[[dict[str, Any], random.Random], None]] = (
    *(_remove, _retype, _make_extreme, _make_extreme, _nest, _multiply, _add, _add, _tune, _tune),
)

# --- changes of the text ----------------------------------------------------------------------------------------------


def _double_key(text: bytes, rng: random.Random) -> bytes:
    at = rng.choice([place for place in range(len(text)) if text[place : place + 1] == b"{"] or [0])
    return (
        text[: at + 1]
        + rng.choice((b'"name": "x", "name": "x", ', b'"a": 1, "a": 1, ', b'"name": "y", '))
        + text[at + 1 :]
    )


def _nest_text(_text: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"[", b'{"name":', b'{"classes":[')) * rng.choice((100, 5_000, 100_000))


def _put_token(text: bytes, rng: random.Random) -> bytes:
    at = rng.choice([place for place in range(len(text)) if text[place : place + 1] == b":"] or [0])
    tokens = (
        b"NaN,",
        b"-Infinity,",
        b"1e999,",
        b"9" * 6_000 + b",",
        b"\xff\xfe,",
        b'"\\ud800",',
        b"/* */",
        b"01,",
        b"'x',",
    )
    return text[: at + 1] + rng.choice(tokens) + b'"q":' + text[at + 1 :]


def _cut(text: bytes, rng: random.Random) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


def _flip(text: bytes, rng: random.Random) -> bytes:
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _recode(text: bytes, rng: random.Random) -> bytes:
    coding = rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7"))
    return text.decode().encode(coding)


def _append(text: bytes, rng: random.Random) -> bytes:
    return text + rng.choice((b"{}", b"\x00", b" " * 5_000_000, b"\n", b"}", b", 1"))


_TEXT_CHANGES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    *(_double_key, _double_key, _nest_text, _put_token, _cut, _flip, _flip, _recode, _append),
)
