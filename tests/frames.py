"""HTTP/2 by hand: a connection on which a test may send what no library would."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from grpc_health.v1 import health_pb2
from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
GENERATE = "/labelmint.v1.LabelMint/Generate"
LABEL = "/labelmint.v1.LabelMint/Label"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
WAIT_S = 60.0

Pairs = Sequence[tuple[str | bytes, str | bytes]]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame; `length` may lie about its payload."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(payload: bytes, *, length: int | None = None, compressed: int = 0) -> bytes:
    """A gRPC message with its five bytes in front."""
    return struct.pack(">BI", compressed, len(payload) if length is None else length) + payload


def request_headers(path: str = HEALTH, **changes: str | bytes | None) -> list[tuple[str, str | bytes]]:
    """Headers of a call; a change to None leaves one out. Underscores of names stand for hyphens."""
    headers: dict[str, str | bytes | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    headers |= {name.replace("pseudo_", ":").replace("_", "-"): value for name, value in changes.items()}
    return [(name, value) for name, value in headers.items() if value is not None]


class RawConnection:
    """A connection without any rules.

    Args:
        address: host:port.
        greets: Whether it begins as HTTP/2 does.
    """

    def __init__(self, address: str, *, greets: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self._encoder, self._decoder = Encoder(), Decoder()
        if greets:
            self.send(PREFACE, frame(SETTINGS))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def headers(self, stream: int, pairs: Pairs, flags: int = END_HEADERS) -> bytes:
        return frame(HEADERS, flags, stream, self._encoder.encode(pairs))

    def encode(self, pairs: Pairs) -> bytes:
        block: bytes = self._encoder.encode(pairs)
        return block

    def ending(self, stream: int) -> str:
        """How the server ends a stream, or all of them.

        Returns:
            "grpc-status N" or "http N" of its last headers, "RST_STREAM", "GOAWAY" or "closed"; "pong" if it answered a
            ping before.
        """
        try:
            for kind, flags, number, payload in self._frames():
                if kind == GOAWAY:
                    return "GOAWAY"
                if kind == PING and flags & ACK:
                    return "pong"
                if kind == RST_STREAM and number == stream:
                    return "RST_STREAM"
                if kind == HEADERS:
                    got = {str(name): str(value) for name, value in self._decoder.decode(payload)}
                    if number == stream and flags & END_STREAM:
                        return f"grpc-status {got['grpc-status']}" if "grpc-status" in got else f"http {got[':status']}"
        except ConnectionError:
            pass
        return "closed"

    def _frames(self) -> Iterable[tuple[int, int, int, bytes]]:
        while head := self._read(9):
            length = int.from_bytes(head[:3], "big")
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = self._read(length)
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK))
            yield kind, flags, stream & 0x7FFFFFFF, payload

    def _read(self, count: int) -> bytes:
        """So many bytes, or none at the end; TimeoutError if the server neither speaks nor ends."""
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                return b""
            data += part
        return data


def watch_without_reading(address: str, name: str) -> RawConnection:
    """Watch health with a window of no byte, so that nothing that the server tells can leave it."""
    connection = RawConnection(address, greets=False)
    connection.send(PREFACE, frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)), frame(SETTINGS, ACK))
    request = message(health_pb2.HealthCheckRequest(service=name).SerializeToString())
    connection.send(connection.headers(1, request_headers(WATCH)), frame(DATA, END_STREAM, 1, request))
    return connection
