"""Floods: what a hostile caller may send for as long as it likes."""

from __future__ import annotations

import itertools
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from labelmint.v1 import service_pb2
from tests.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GENERATE,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawConnection,
    frame,
    message,
    request_headers,
)

NUM_ATTACKERS = 4
STUCK_S = 0.5
"""After so long without taking a byte, the server has stopped reading, and the attacker connects anew."""

Parts = Iterator[bytes]
_ENDLESS = service_pb2.GenerateRequest(model="tiny", seed=1, endless=True).SerializeToString()
_COUNT = 100
"""Frames that are sent at a time."""


def _streams() -> Iterator[int]:
    return itertools.count(1, 2)


def rapid_reset(connection: RawConnection) -> Parts:
    """CVE-2023-44487: calls that are given up as soon as they begin."""
    for stream in _streams():
        yield connection.headers(stream, request_headers()) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


def rapid_reset_of_work(connection: RawConnection) -> Parts:
    """The same, once the engine has something to do."""
    for stream in _streams():
        call = connection.headers(stream, request_headers(GENERATE)) + frame(
            DATA, END_STREAM, stream, message(_ENDLESS)
        )
        yield call + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


def calls_without_messages(connection: RawConnection) -> Parts:
    for stream in _streams():
        yield connection.headers(stream, request_headers(GENERATE))


def calls_that_nobody_reads(connection: RawConnection) -> Parts:
    for stream in _streams():
        yield connection.headers(stream, request_headers(GENERATE)) + frame(DATA, END_STREAM, stream, message(_ENDLESS))


def many_headers(connection: RawConnection) -> Parts:
    for stream in _streams():
        extra = [(f"header-{stream}-{number}", "x" * 100) for number in range(50)]
        yield connection.headers(stream, [*request_headers(), *extra], END_HEADERS | END_STREAM)


def endless_continuation(connection: RawConnection) -> Parts:
    """CVE-2024-27316: a header block that never ends."""
    yield connection.headers(1, request_headers(), 0)
    for number in itertools.count():
        yield frame(CONTINUATION, 0, 1, connection.encode([(f"header-{number}", "x" * 8_000)]))


def window_updates(_connection: RawConnection) -> Parts:
    while True:
        yield frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * _COUNT


def settings(_connection: RawConnection) -> Parts:
    """Each wants an answer, which nobody reads."""
    for number in itertools.count():
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535 + number % 2)) * _COUNT


def pings(_connection: RawConnection) -> Parts:
    while True:
        yield frame(PING, 0, 0, os.urandom(8)) * _COUNT


def acknowledgements(_connection: RawConnection) -> Parts:
    while True:
        yield (frame(SETTINGS, ACK) + frame(PING, ACK, 0, bytes(8))) * _COUNT


def priorities(_connection: RawConnection) -> Parts:
    for stream in _streams():
        yield frame(PRIORITY, 0, stream, struct.pack(">IB", stream + 2, 7)) * _COUNT


def empty_data(connection: RawConnection) -> Parts:
    yield connection.headers(1, request_headers(GENERATE))
    while True:
        yield frame(DATA, 0, 1) * _COUNT


def noise(_connection: RawConnection) -> Parts:
    while True:
        yield os.urandom(16_384)


def long_messages(connection: RawConnection) -> Parts:
    """Messages of a mebibyte of which the end never comes."""
    for stream in _streams():
        yield connection.headers(stream, request_headers(GENERATE)) + frame(DATA, 0, stream, message(b"", length=2**20))
        for _ in range(63):
            yield frame(DATA, 0, stream, bytes(16_384))


def stalled_headers(_connection: RawConnection) -> Parts:
    """Slowloris: a byte now and then, so that the connection never is idle."""
    for byte in frame(HEADERS, END_HEADERS, 1, bytes(16_000)):
        time.sleep(0.05)
        yield bytes([byte])


def half_open(connection: RawConnection) -> Parts:
    """Connections that never come to anything, many at a time."""
    host, port = connection.socket.getpeername()
    others = []
    try:
        for number in range(50):
            others.append(RawConnection(f"{host}:{port}", greets=False))
            others[-1].send(PREFACE[: number % len(PREFACE)])
            yield b""
        while True:
            time.sleep(0.05)
            yield b""
    finally:
        for other in others:
            other.socket.close()


FLOODS: Mapping[str, Callable[[RawConnection], Parts]] = {
    flood.__name__.replace("_", " "): flood
    for flood in (
        rapid_reset,
        rapid_reset_of_work,
        calls_without_messages,
        calls_that_nobody_reads,
        many_headers,
        endless_continuation,
        window_updates,
        settings,
        pings,
        acknowledgements,
        priorities,
        empty_data,
        noise,
        long_messages,
        stalled_headers,
        half_open,
    )
}


def attack(address: str, flood: Callable[[RawConnection], Parts], is_over: threading.Event) -> int:
    """Flood a server until it is over, on a new connection whenever it ends one; gives the number of connections."""
    count = 0
    while not is_over.is_set():
        count += 1
        try:
            with RawConnection(address) as connection:
                connection.socket.settimeout(STUCK_S)
                for part in flood(connection):
                    connection.send(part)
                    if is_over.is_set():
                        break
        except OSError:
            time.sleep(0.01)  # refused, ended or stuck
    return count
