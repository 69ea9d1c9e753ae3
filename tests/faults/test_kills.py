"""A server that is killed at random moments, and started again, under clients that read all the while.

`--kills` says how often; `make test-faults` and `make soak` ask for many.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from labelmint_client import Client
from tests.faults.readers import PATIENT, free_port, reading
from tests.service.server_process import server_process

SHORTEST_LIFE_S, LONGEST_LIFE_S = 0.05, 1.5


def lives(count: int) -> Iterator[tuple[float, signal.Signals]]:
    """How long each server lives after it is ready, and how it dies: `count` are killed, others are told to stop."""
    rng = random.Random(count)
    for _ in range(count):
        yield rng.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S), signal.SIGKILL
        if rng.random() < 1 / 3:
            yield rng.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S), signal.SIGTERM


@pytest.mark.slow
@pytest.mark.timeout(14_400)
def test_kills_lose_nothing_and_double_nothing(tiny: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    address = f"127.0.0.1:{free_port()}"
    flags = ("--bundle", str(tiny), "--port", address.partition(":")[2], "--grace-s", "0.3")
    with ExitStack() as stack:
        readers = None
        for life_s, died_of in lives(request.config.getoption("--kills")):
            with server_process(tmp_path, *flags) as running:
                if readers is None:
                    readers = stack.enter_context(reading(lambda _: Client(address, retry=PATIENT)))
                time.sleep(life_s)
                running.signal(died_of)
                running.wait()
        assert readers is not None
        with server_process(tmp_path, *flags), Client(address) as client:
            assert all(readers.finish(client)), "a stream never broke: the kills met nobody"
