"""Readers that read while something goes wrong, and have to end up with exactly what they asked for."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from labelmint_client import Client, RetryPolicy, Sample

PATIENT = RetryPolicy(
    max_attempts=1000,
    connect_attempts=1000,
    max_connect_s=600.0,
    initial_backoff_s=0.05,
    max_backoff_s=0.5,
    multiplier=1.5,
)
FIELDS = ("image", "mask", "keypoints", "uncertainty_map", "z")
SAMPLES_AFTERWARDS = 40
PAUSE_S = 0.004
"""Of a reader after each sample, so that records stay small; faster readers see the same faults."""
WAIT_S = 120.0

# Any: arguments of Client.generate.
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"fields": FIELDS},
    {"image_codec": "jpeg", "mask_codec": "zstd"},
    {"image_codec": "png", "mask_codec": "png"},
    {"shard_index": 1, "num_shards": 3},
    {"max_uncertainty_quantile": 0.6},
    {"max_message_bytes": 65536, "start_index": 2**63},
    {"truncation_psi": 0.5},
)
"""Of each reader."""


@dataclass(frozen=True, slots=True)
class Received:
    """A sample, as far as it has to be the same again."""

    index: int
    digest: bytes

    @classmethod
    def of(cls, sample: Sample) -> Received:
        digest = hashlib.sha256(repr((sample.class_index, sample.uncertainty)).encode())
        for name in FIELDS:
            array = getattr(sample, name) if sample.has(name) else None
            digest.update(f"{name} {array if array is None else (array.dtype, array.shape)}".encode())
            digest.update(b"" if array is None else array.tobytes())
        return cls(sample.index, digest.digest())


class Readers:
    """Eight readers, each with a kind of request and a seed of its own.

    Args:
        make_client: Of a reader, by its number.
    """

    def __init__(self, make_client: Callable[[int], Client]) -> None:
        self._make_client = make_client
        self._is_over = threading.Event()
        self._have_begun = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(len(KINDS))
        self._reading: list[Future[tuple[list[Received], int]]] = [
            self._pool.submit(self._read, seed) for seed in range(len(KINDS))
        ]

    def wait_until_begun(self) -> None:
        """Wait until every reader has a sample."""
        for _ in KINDS:
            assert self._have_begun.acquire(timeout=WAIT_S), "a reader got nothing"

    def finish(self, client: Client, *, lost: Collection[int] = ()) -> list[int]:
        """Let all read a little more, compare what they got with whole streams, and say how often each was broken.

        Args:
            client: Of a sound server.
            lost: Readers that have failed, as they should.
        """
        self._is_over.set()
        breaks = []
        for seed, (kind, future) in enumerate(zip(KINDS, self._reading, strict=True)):
            if seed in lost:
                continue
            received, num_reconnects = future.result()
            whole = client.generate("tiny", seed=seed, count=len(received), **kind)
            assert [Received.of(sample) for sample in whole] == received, kind
            breaks.append(num_reconnects)
        return breaks

    def failure(self, seed: int) -> BaseException:
        """How a reader failed, which it has to."""
        error = self._reading[seed].exception(WAIT_S)
        assert error is not None, "the reader did not fail"
        return error

    def ended(self) -> set[int]:
        """Readers that read no more."""
        return {seed for seed, future in enumerate(self._reading) if future.done()}

    def stop(self) -> None:
        """End, whatever the readers do."""
        self._is_over.set()
        self._pool.shutdown()

    def _read(self, seed: int) -> tuple[list[Received], int]:
        received: list[Received] = []
        left = SAMPLES_AFTERWARDS
        with (
            self._make_client(seed) as client,
            client.generate("tiny", seed=seed, endless=True, **KINDS[seed]) as stream,
        ):
            for sample in stream:
                received.append(Received.of(sample))
                if len(received) == 1:
                    self._have_begun.release()
                left -= self._is_over.is_set()
                if not left:
                    return received, stream.num_reconnects
                time.sleep(PAUSE_S)
        raise AssertionError("an endless stream ended")


@contextlib.contextmanager
def reading(make_client: Callable[[int], Client]) -> Iterator[Readers]:
    """Readers for the length of a with block."""
    readers = Readers(make_client)
    try:
        yield readers
    finally:
        readers.stop()


def free_port() -> int:
    """A port that a server may be started on again and again: below those that systems give to connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
