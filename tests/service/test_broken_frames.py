"""Frames that break HTTP/2 or gRPC: each is refused at once or ignored, and the next caller is served.

Most of this is grpc's own work. The tests say what this service relies on, and tell if another version does otherwise.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client_files import ClientFile
from tests.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GENERATE,
    GOAWAY,
    HEADERS,
    HEALTH,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Pairs,
    RawConnection,
    frame,
    message,
    request_headers,
)
from tests.service.calls import TIMEOUT_S, collect, make_request
from tests.serving import Serving, serving

Act = Callable[[RawConnection], None]
FRAME_BYTES = 16_384
ENDED = ("RST_STREAM", "GOAWAY", "closed")
OK, INVALID, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = (f"grpc-status {code}" for code in (0, 3, 8, 12, 13, 14))
SERVICE = "/labelmint.v1.LabelMint/"
REQUEST = make_request().SerializeToString()


@pytest.fixture(scope="module")
def impatient(bundles: dict[str, Path]) -> Iterator[Serving]:
    with serving([bundles["tiny"]], handshake_timeout_s=0.5, first_message_timeout_s=0.5) as running:
        yield running


def call(*data: bytes, path: str = GENERATE, is_ended: bool = True, **changes: str | bytes | None) -> Act:
    """Sends headers and data of a call."""

    def act(connection: RawConnection) -> None:
        body = b"".join(data)
        parts = [frame(DATA, 0, 1, body[first : first + FRAME_BYTES]) for first in range(0, len(body), FRAME_BYTES)]
        if is_ended:
            parts.append(frame(DATA, END_STREAM, 1))
        connection.send(connection.headers(1, request_headers(path, **changes)), *parts)

    return act


def extra(pairs: Pairs) -> Act:
    """Sends a health check with more headers."""

    def act(connection: RawConnection) -> None:
        headers = connection.headers(1, [*request_headers(), *pairs])
        connection.send(headers, frame(DATA, END_STREAM, 1, message(b"")))

    return act


CALLS: dict[str, tuple[Act, tuple[str, ...]]] = {
    "sound": (call(message(REQUEST)), (OK,)),
    "wrong path": (call(message(b""), path="/no.Such/Call"), (UNIMPLEMENTED,)),
    "long path": (call(message(b""), path="/" + "x" * 5_000), (UNIMPLEMENTED, *ENDED)),
    "path that is no UTF-8": (call(message(REQUEST), pseudo_path=b"/labelmint.v1.LabelMint/\xff"), (UNIMPLEMENTED,)),
    "method that is no UTF-8": (call(message(REQUEST), pseudo_method=b"\xff"), (INTERNAL, *ENDED)),
    "metadata that is no UTF-8": (extra([(b"header", b"\xff")]), (OK,)),
    "deadline that is no UTF-8": (call(message(REQUEST), grpc_timeout=b"\xff"), (INTERNAL, *ENDED)),
    "no path": (call(message(b""), pseudo_path=None), ENDED),
    "wrong method": (call(message(b""), pseudo_method="GET"), ENDED),
    "no te": (call(message(b""), te=None), ENDED),
    "wrong content-type": (call(message(REQUEST), content_type="text/plain"), (OK, "http 415", *ENDED)),
    "no content-type": (call(message(REQUEST), content_type=None), (OK, "http 415", *ENDED)),
    "impossible deadline": (call(message(REQUEST), grpc_timeout="99999999999999999S"), (OK, INTERNAL, *ENDED)),
    "headers of 40 KB": (extra([(f"header-{number}", "x" * 1_000) for number in range(40)]), (EXHAUSTED, *ENDED)),
    "header of 64 KB": (extra([("header", "x" * 65_536)]), (EXHAUSTED, *ENDED)),
    "no message": (call(), (INVALID,)),
    "no message to list by": (call(path=f"{SERVICE}ListModels"), (INVALID,)),
    "no message to look up": (call(path=f"{SERVICE}GetModel"), (INVALID,)),
    "no message with options": (call(path=f"{SERVICE}Label"), (INVALID,)),
    "two messages": (call(message(REQUEST), message(REQUEST)), (OK, INVALID)),
    "half a message": (call(message(b"abc", length=100)), (INVALID,)),
    "half a length": (call(b"\x00\x00"), (INVALID,)),
    "length above the limit": (call(message(b"abc", length=2**32 - 1), is_ended=False), (EXHAUSTED,)),
    "message that never comes": (call(is_ended=False), ("grpc-status 4",)),
    "rest that never comes": (call(message(b"abc", length=100), is_ended=False), ("grpc-status 4",)),
    "flag of compression alone": (call(message(REQUEST, compressed=1)), (INTERNAL, INVALID, UNIMPLEMENTED)),
    "unknown compression": (call(message(REQUEST, compressed=1), grpc_encoding="br"), (INTERNAL, UNIMPLEMENTED)),
    "broken compression": (call(message(b"abc", compressed=1), grpc_encoding="gzip"), (INTERNAL, INVALID)),
    "bomb": (call(message(gzip.compress(bytes(20 << 20)), compressed=1), grpc_encoding="gzip"), (EXHAUSTED,)),
    "compressed request": (call(message(gzip.compress(REQUEST), compressed=1), grpc_encoding="gzip"), (OK,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_broken_call_ends_at_once(impatient: Serving, name: str) -> None:
    act, expected = CALLS[name]
    with RawConnection(impatient.address) as connection:
        act(connection)
        assert connection.ending(1) in expected


def raw(*parts: bytes) -> Act:
    return lambda connection: connection.send(*parts)


CONNECTIONS: dict[str, Act] = {
    "even stream": lambda connection: connection.send(connection.headers(2, request_headers())),
    "stream 0": lambda connection: connection.send(connection.headers(0, request_headers())),
    "stream again": lambda connection: connection.send(
        *(connection.headers(1, request_headers(), END_HEADERS | END_STREAM) for _ in range(2))
    ),
    "data on stream 0": raw(frame(DATA, 0, 0, b"x")),
    "data on no stream": raw(frame(DATA, 0, 7, b"x")),
    "padding longer than the frame": raw(frame(DATA, 0x8, 1, b"\xffab")),
    "headers that are none": raw(frame(HEADERS, END_HEADERS, 1, b"\xff" * 50)),
    "settings of 3 bytes": raw(frame(SETTINGS, 0, 0, b"abc")),
    "window above its limit": raw(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**32 - 1))),
    "ping of 3 bytes": raw(frame(PING, 0, 0, b"abc")),
    "window update of 0": raw(frame(WINDOW_UPDATE, 0, 0, bytes(4))),
    "windows that overflow": raw(*[frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")] * 3),
    "push": raw(frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4))),
    "lonely continuation": raw(frame(CONTINUATION, END_HEADERS, 1)),
    "ping among continuations": lambda connection: connection.send(connection.headers(1, request_headers(), 0)),
    "reset of no stream": raw(frame(RST_STREAM, 0, 9, bytes(4))),
    "own parent": raw(frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 255))),
    "farewell": raw(frame(GOAWAY, 0, 0, bytes(8))),
    "unknown frame": raw(frame(0xEE, 0xFF, 5, b"x" * 100)),
    "frame above its limit": raw(frame(HEADERS, END_HEADERS, 1, b"x" * 100_000, length=2**24 - 1)),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_broken_connection_goes_on_or_is_ended(impatient: Serving, name: str) -> None:
    with RawConnection(impatient.address) as connection:
        try:
            CONNECTIONS[name](connection)
            connection.send(frame(PING, 0, 0, b"12345678"))
        except ConnectionError:
            return
        assert connection.ending(1) in {"pong", UNAVAILABLE, INTERNAL, INVALID, *ENDED}


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01" + bytes(range(256)),
        PREFACE + frame(PING, 0, 0, bytes(8)),
        PREFACE[:10],
        PREFACE,
        b"",
    ],
    ids=["HTTP/1.1", "TLS", "ping first", "half a preface", "no settings", "nothing"],
)
def test_what_is_no_connection_is_ended_in_time(impatient: Serving, data: bytes) -> None:
    with RawConnection(impatient.address, greets=False) as connection:
        connection.send(data)
        assert connection.ending(1) in ENDED


def test_connections_above_their_limit_are_closed_and_leave_the_others(bundles: dict[str, Path]) -> None:
    limit = 8
    with serving([bundles["tiny"]], max_connections=limit) as running:
        connections = [RawConnection(running.address) for _ in range(2 * limit)]
        for connection in connections[:limit]:
            call(message(b""), path=HEALTH)(connection)
        endings = [connection.ending(1) for connection in connections]
        for connection in connections:
            connection.socket.close()
        assert endings == [OK] * limit + ["closed"] * limit
        stream = running.stub().Generate(make_request(), timeout=TIMEOUT_S, wait_for_ready=True)
        assert collect(stream).indices == [0, 1, 2, 3, 4]


def test_caller_without_a_token_is_refused_before_its_message_came(bundles: dict[str, Path], tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", one={})
    with serving([bundles["tiny"]], tokens=clients.path) as running, RawConnection(running.address) as connection:
        call(message(b"abc", length=100), is_ended=False)(connection)
        assert connection.ending(1) == "grpc-status 16"


def test_server_serves_after_all_this(impatient: Serving) -> None:
    assert collect(impatient.stub().Generate(make_request(), timeout=TIMEOUT_S)).indices == [0, 1, 2, 3, 4]
