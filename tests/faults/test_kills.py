"""A server that is killed at random moments, and started again, under clients that read all the while.

`--kills` says how often; `make test-faults` and `make soak` ask for many.
"""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labelmint_client import Client, RetryPolicy, Sample
from tests.service.server_process import server_process

CLIENTS = 8
PATIENT = RetryPolicy(
    max_attempts=1000, connect_attempts=1000, initial_backoff_s=0.05, max_backoff_s=0.5, multiplier=1.5
)
SHORTEST_LIFE_S, LONGEST_LIFE_S = 0.05, 1.5
SAMPLES_AFTERWARDS = 40
PAUSE_S = 0.004
"""Of a reader after each sample, so that records stay small; faster readers see the same faults."""

# Any: arguments of Client.generate.
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"fields": ("image", "mask", "keypoints", "uncertainty_map", "z")},
    {"image_codec": "jpeg", "mask_codec": "zstd"},
    {"image_codec": "png", "mask_codec": "png"},
    {"shard_index": 1, "num_shards": 3},
    {"max_uncertainty_quantile": 0.6},
    {"max_message_bytes": 65536, "start_index": 2**63},
    {"truncation_psi": 0.5},
)


@dataclass(frozen=True, slots=True)
class Received:
    """A sample, as far as it has to be the same again."""

    index: int
    digest: bytes

    @classmethod
    def of(cls, sample: Sample) -> Received:
        arrays = [getattr(sample, name) for name in ("image", "mask", "keypoints") if sample.has(name)]
        content = b"".join(array.tobytes() for array in arrays)
        return cls(sample.index, hashlib.sha256(content + repr(sample.uncertainty).encode()).digest())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def read_until(address: str, seed: int, kind: dict[str, Any], is_over: threading.Event) -> tuple[list[Received], int]:
    """Read until the kills are over, and some samples more; gives what came and how often the stream broke."""
    received: list[Received] = []
    left = SAMPLES_AFTERWARDS
    with Client(address, retry=PATIENT) as client, client.generate("tiny", seed=seed, endless=True, **kind) as stream:
        for sample in stream:
            received.append(Received.of(sample))
            left -= is_over.is_set()
            if not left:
                return received, stream.num_reconnects
            time.sleep(PAUSE_S)
    raise AssertionError("an endless stream ended")


def lives(count: int) -> Iterator[tuple[float, signal.Signals]]:
    """How long each server lives after it is ready, and how it dies: two of three at once, one is told to stop."""
    rng = random.Random(count)
    for _ in range(count):
        died_of = signal.SIGTERM if rng.random() < 1 / 3 else signal.SIGKILL
        yield rng.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S), died_of


@pytest.mark.slow
@pytest.mark.timeout(14_400)
def test_kills_lose_nothing_and_double_nothing(tiny: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    flags = ("--bundle", str(tiny), "--port", str(free_port()), "--grace-s", "0.3")
    is_over = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        reading: list[Future[tuple[list[Received], int]]] = []
        for life_s, died_of in lives(request.config.getoption("--kills")):
            with server_process(tmp_path, *flags) as running:
                if not reading:
                    arguments = enumerate(KINDS)
                    reading = [pool.submit(read_until, running.address, *pair, is_over) for pair in arguments]
                time.sleep(life_s)
                running.signal(died_of)
                running.wait()
        with server_process(tmp_path, *flags) as running:
            is_over.set()
            results = [future.result() for future in reading]
            with Client(running.address) as client:
                for seed, (kind, (received, _)) in enumerate(zip(KINDS, results, strict=True)):
                    whole = client.generate("tiny", seed=seed, count=len(received), **kind)
                    assert [Received.of(sample) for sample in whole] == received, kind
    assert all(num_reconnects for _, num_reconnects in results), "a stream never broke: the kills met nobody"
