"""Keepalive: a peer that does not answer pings is gone, and its connection is closed; one that answers stays.

For as long as it calls: a connection without calls is closed after a while too.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from labelmint.v1 import service_pb2_grpc
from labelmint_client import Client
from tests.frames import ACK, DATA, END_STREAM, PING, RawConnection, frame, message, request_headers
from tests.service.calls import TIMEOUT_S, collect, make_request
from tests.serving import serving

KEEPALIVE_S = 1.0
"""The shortest that the settings allow, of the quiet before a ping and of the wait for its answer."""
IDLE_S = 1.0
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


def test_connection_without_calls_makes_room_and_its_caller_calls_on(bundles: dict[str, Path]) -> None:
    states = queue.Queue[grpc.ChannelConnectivity]()
    with serving([bundles["tiny"]], max_connections=1, connection_idle_s=IDLE_S) as running:
        channel = running.channel()
        stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
        first = collect(stub.Generate(make_request(), timeout=TIMEOUT_S))
        channel.subscribe(states.put)
        while states.get(timeout=TIMEOUT_S) is not grpc.ChannelConnectivity.IDLE:
            pass
        with AnsweringConnection(running.address) as quiet:  # takes the only place, answers pings and makes no call
            began_s = time.monotonic()
            ending = quiet.ending(1)
            took_s = time.monotonic() - began_s
        again = collect(stub.Generate(make_request(), timeout=TIMEOUT_S, wait_for_ready=True))

    assert ending in {"GOAWAY", "closed"}
    assert IDLE_S - EARLY_S <= took_s < IDLE_S + SLACK_S
    assert first.indices == again.indices == [0, 1, 2, 3, 4]


def test_stream_outlives_the_idle_time_and_a_client_calls_on_after_it(bundles: dict[str, Path]) -> None:
    with serving([bundles["tiny"]], connection_idle_s=IDLE_S) as running, Client(running.address) as client:
        with client.generate("tiny", seed=1, endless=True) as stream:
            next(stream)
            with AnsweringConnection(running.address) as clock:
                clock.ending(1)
            assert next(stream).index == 1
            assert stream.num_reconnects == 0
        with AnsweringConnection(running.address) as clock:
            clock.ending(1)  # and so was the client's, which is without a call for longer
        indices = [sample.index for sample in client.generate("tiny", seed=1, count=5)]

    assert indices == [0, 1, 2, 3, 4]
