"""A server that stands still, as one whose machine hangs: the client does not wait for ever."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from labelmint_client import Client, RetryPolicy, ServerUnavailableError
from tests.service.server_process import server_process

PING_S, ANSWER_S, SLACK_S = 30.0, 10.0, 8.0
"""Quiet after which the client asks, and how long it waits for the answer."""


@pytest.mark.faults
def test_client_notices_a_server_that_stands_still(tiny: Path, tmp_path: Path) -> None:
    at_once = RetryPolicy(max_attempts=1, connect_attempts=1)
    with server_process(tmp_path, "--bundle", str(tiny)) as server, Client(server.address, retry=at_once) as client:
        samples = client.generate("tiny", seed=1, endless=True)
        next(samples)
        server.signal(signal.SIGSTOP)
        began_s = time.monotonic()
        with pytest.raises(ServerUnavailableError):
            for _ in samples:
                pass
        assert time.monotonic() - began_s < PING_S + ANSWER_S + SLACK_S
