"""Keepalive: a peer that does not answer pings is gone, and its connection is closed; one that answers stays."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.frames import ACK, DATA, END_STREAM, PING, RawConnection, frame, message, request_headers
from tests.serving import serving

KEEPALIVE_S = 1.0
"""The shortest that the settings allow, of the quiet before a ping and of the wait for its answer."""
EARLY_S, SLACK_S = 0.1, 8.0
"""Of timers that are rounded, and of a busy machine."""


class AnsweringConnection(RawConnection):
    """Answers pings.

    Attributes:
        num_answers: How many so far.
    """

    num_answers = 0

    def _frames(self) -> Iterable[tuple[int, int, int, bytes]]:
        for kind, flags, stream, payload in super()._frames():
            if kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, payload))
                self.num_answers += 1
            yield kind, flags, stream, payload


def test_silent_peer_is_closed_after_two_keepalive_times_and_one_that_answers_is_not(bundles: dict[str, Path]) -> None:
    settings = {"keepalive_time_s": KEEPALIVE_S, "keepalive_timeout_s": KEEPALIVE_S}
    with serving([bundles["tiny"]], **settings) as running, ThreadPoolExecutor(1) as pool:
        began_s = time.monotonic()
        with AnsweringConnection(running.address) as answering, RawConnection(running.address) as silent:
            answered = pool.submit(answering.ending, 1)
            ending = silent.ending(1)
            took_s = time.monotonic() - began_s
            num_answers = answering.num_answers
            answering.send(answering.headers(1, request_headers()), frame(DATA, END_STREAM, 1, message(b"")))
            outcome = answered.result()

    assert ending in {"GOAWAY", "closed"}
    assert 2 * KEEPALIVE_S - EARLY_S <= took_s < 2 * KEEPALIVE_S + SLACK_S
    assert num_answers, "nobody asked"
    assert outcome == "grpc-status 0"
