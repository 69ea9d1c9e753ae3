"""Shared memory: where a server on this machine puts RAW arrays, past gRPC. `service.proto` has the layout."""

import contextlib
import math
import mmap
import os
import secrets
import weakref
from pathlib import Path

from labelmint.arrays import DTYPES
from labelmint.batches import ReceivedBatch, read_batch
from labelmint.v1 import service_pb2
from labelmint.wire import RING_END_BYTES, RING_HEAD_BYTES, RING_PREFIX, ring_bytes
from labelmint_client._errors import InvalidArgumentError, ProtocolError

FOLDER = Path("/dev/shm")  # noqa: S108 - made with O_EXCL, under a name that nobody guesses


class SharedRing:
    """The ring of one call.

    Args:
        num_bytes: Of the ring; rounded up to a multiple of 64.

    Raises:
        InvalidArgumentError: There is no such memory here.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = ring_bytes(num_bytes)
        self._name = f"{RING_PREFIX}{secrets.token_hex(16)}"
        path = FOLDER / self._name
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, RING_HEAD_BYTES + self._num_bytes)
                self._memory = mmap.mmap(file, RING_HEAD_BYTES + self._num_bytes)
            finally:
                os.close(file)
        except (AttributeError, OSError) as error:
            _remove(path)
            raise InvalidArgumentError(
                f"shared_memory_bytes is {num_bytes}, but {FOLDER} does not give a file of that size ({error}); ask "
                "for less, or leave it out",
                field="shared_memory_bytes",
            ) from error
        # Nobody needs the name once the server has opened the file.
        self._unlink = weakref.finalize(self, _remove, path)

    def request(self) -> service_pb2.SharedMemory:
        """What the server is told."""
        return service_pb2.SharedMemory(name=self._name, num_bytes=self._num_bytes)

    def read(self, data: bytes) -> ReceivedBatch:
        """Read a message, and copy its arrays out of the ring, which the server may then use again.

        Args:
            data: A serialised SampleBatch.

        Raises:
            DecodeError: It is none.
            ProtocolError: It names places outside the ring.
        """
        batch = read_batch(data)
        self._unlink()
        shared = {name: self._take(name, tensor) for name, tensor in batch.tensors.items() if _is_shared(tensor)}
        self._memory[:RING_END_BYTES] = batch.message.shared_end.to_bytes(RING_END_BYTES, "little")
        return ReceivedBatch(message=batch.message, tensors=batch.tensors, data={**batch.data, **shared})

    def _take(self, name: str, tensor: service_pb2.Tensor) -> memoryview:
        dtype = DTYPES.get(tensor.dtype)
        num_bytes = math.prod(tensor.shape) * dtype.itemsize if dtype else 0
        first = RING_HEAD_BYTES + tensor.shared_offset
        if first + num_bytes > len(self._memory):
            raise ProtocolError(
                f"{name} lies at {tensor.shared_offset} of a ring of {self._num_bytes} bytes", field=name
            )
        return memoryview(self._memory[first : first + num_bytes])


def _is_shared(tensor: service_pb2.Tensor) -> bool:
    return tensor.HasField("shared_offset")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
