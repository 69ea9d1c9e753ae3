"""Shared memory: a ring in a caller's file, where RAW arrays go for a reader on this machine.

The file is written with pwrite and never mapped: a caller that truncates it harms its own samples and nothing else. The
caller stores how far it has read; nothing beyond is overwritten. `labelmint/v1/service.proto` has the layout.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.v1 import service_pb2
from labelmint.wire import RING_ALIGNMENT, RING_END_BYTES, RING_HEAD_BYTES, RING_NAME, RING_PREFIX, ring_bytes
from labelmint_service.errors import RequestError

_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.0005, 0.01
_CLOSED = -1


class SharedRing:
    """The ring of one stream.

    Args:
        asked: Name of the file and size of the ring, as the request has them; nothing of it is trusted.
        folder: Where the file lies; None refuses all of them.
        field: Request field that asked for it.

    Attributes:
        num_bytes: Of the ring.
        end: Bytes used since the stream began, gaps included.

    Raises:
        RequestError: There is no such file, or it is not what the request says.
    """

    def __init__(self, asked: service_pb2.SharedMemory, folder: Path | None, *, field: str) -> None:
        self.num_bytes = asked.num_bytes
        self.end = 0
        self._released = 0
        self._field = field
        # A worker thread may still write while the stream ends, and the number of a closed file soon names another.
        self._lock = threading.Lock()
        if folder is None:
            raise RequestError(
                f"{field} is set, but this server shares no memory; leave it out, or ask the operator to set "
                "shared_memory_folder",
                field=field,
            )
        name = asked.name
        if not RING_NAME.fullmatch(name):
            raise RequestError(
                f"{field}.name is {name[:64]!r}, expected {RING_PREFIX!r} and 32 lower-case hexadecimal digits; make a "
                "random one",
                field=f"{field}.name",
            )
        try:
            self._file = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RequestError(
                f"{field}.name: {name} cannot be opened in {folder} ({error.strerror}), expected a file there that the "
                "server may write; is the caller on this machine?",
                field=f"{field}.name",
            ) from error
        try:
            self._check(os.fstat(self._file))
        except RequestError:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go; what is put from now on is dropped."""
        with self._lock:
            file, self._file = self._file, _CLOSED
        if file != _CLOSED:
            os.close(file)

    async def wait_for(self, num_bytes: int, largest: int) -> None:
        """Wait until there is room.

        Args:
            num_bytes: Of all arrays that will be put, by `ring_bytes`.
            largest: Of the largest of them.

        Raises:
            RequestError: There never will be, or the caller says that it has read what was not written.
        """
        needed = num_bytes + largest  # an array is not split: the end of the ring may stay empty
        if needed > self.num_bytes:
            raise RequestError(
                f"{self._field}.num_bytes is {self.num_bytes}, expected at least {needed} for a batch of this model; "
                "make the file larger",
                field=f"{self._field}.num_bytes",
            )
        pause_s = _SHORTEST_WAIT_S
        while self._file != _CLOSED and self.num_bytes - (self.end - self._read_released()) < needed:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_WAIT_S)

    def put(self, array: npt.NDArray[Any]) -> int:
        """Write an array for which there is room.

        Args:
            array: Row-major, of any dtype that travels.

        Returns:
            Where it begins in the ring.

        Raises:
            RequestError: The file cannot be written.
        """
        if self.num_bytes - self.end % self.num_bytes < array.nbytes:
            self.end += self.num_bytes - self.end % self.num_bytes
        offset = self.end % self.num_bytes
        rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        place = RING_HEAD_BYTES + offset
        try:
            with self._lock:
                while rest and self._file != _CLOSED:
                    written = os.pwrite(self._file, rest, place)
                    rest, place = rest[written:], place + written
        except OSError as error:
            raise RequestError(
                f"{self._field}: the file cannot be written ({error.strerror}); make room for all of it",
                field=self._field,
            ) from error
        self.end += ring_bytes(array.nbytes)
        return offset

    def _check(self, status: os.stat_result) -> None:
        expected = RING_HEAD_BYTES + self.num_bytes
        if not stat.S_ISREG(status.st_mode) or status.st_size != expected or self.num_bytes % RING_ALIGNMENT:
            raise RequestError(
                f"{self._field}.num_bytes is {self.num_bytes} for a file of {status.st_size} bytes, expected a "
                f"multiple of {RING_ALIGNMENT} and a regular file that is {RING_HEAD_BYTES} bytes larger; make both "
                "agree",
                field=f"{self._field}.num_bytes",
            )

    def _read_released(self) -> int:
        """How far the caller has read."""
        released = int.from_bytes(os.pread(self._file, RING_END_BYTES, 0), "little")
        if not self._released <= released <= self.end:
            raise RequestError(
                f"{self._field}: the head says that {released} bytes were read, expected {self._released} to "
                f"{self.end}; store the shared_end of each message in turn",
                field=self._field,
            )
        self._released = released
        return released
