"""Callers who neither read nor send: their places are free again, and those who read on later lose nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from labelmint.arrays import tensor_from_array
from labelmint.v1 import service_pb2_grpc
from labelmint.v1.service_pb2 import LabelOptions, LabelRequest
from labelmint_client import Client
from labelmint_client._shared_ring import FOLDER
from tests.client_files import ClientFile
from tests.frames import (
    DATA,
    END_STREAM,
    GENERATE,
    LABEL,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    RawConnection,
    frame,
    message,
    request_headers,
)
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, collect, expect_failure, make_request
from tests.service.reading import wait_for_metric
from tests.service.scripted_engine import scripted_model
from tests.service.test_label import make_z
from tests.service.test_label_start import SilentCaller
from tests.serving import Serving, serving

LIMIT_S = 0.3
EVENT = "stream.abandoned"
ENDLESS = make_request(max_accepted=None, endless=True)
NO_WINDOW = (4).to_bytes(2, "big") + bytes(4)
"""The setting that all streams begin with a window of no byte."""


def active(running: Serving, count: int) -> None:
    """Wait until so many streams have a place."""
    wait_for_metric(running, "labelmint_active_streams", "tiny", count)


def wait_for_lines(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, Any]]:  # Any: fields of every type
    """Wait until so many streams were abandoned; what the log says of them."""
    until_s = time.monotonic() + TIMEOUT_S
    while len(found := [vars(record)["labelmint_fields"] for record in caplog.records if record.msg == EVENT]) < count:
        assert time.monotonic() < until_s, f"{len(found)} streams were abandoned, expected {count}"
        time.sleep(0.005)
    return found


@contextmanager
def stopped_reader(running: Serving, *pairs: tuple[str, str], count: int = 1) -> Iterator[RawConnection]:
    """Calls with a window of no byte, on one connection."""
    with RawConnection(running.address, greets=False) as connection:
        connection.send(PREFACE, frame(SETTINGS, 0, 0, NO_WINDOW))
        for stream in range(1, 2 * count, 2):
            headers = connection.headers(stream, [*request_headers(GENERATE), *pairs])
            connection.send(headers, frame(DATA, END_STREAM, stream, message(ENDLESS.SerializeToString())))
        yield connection


def read_on(connection: RawConnection) -> str:
    """Open the windows of a stopped reader; how its first call ends."""
    size = (2**24).to_bytes(4, "big")
    connection.send(frame(WINDOW_UPDATE, 0, 0, size), frame(WINDOW_UPDATE, 0, 1, size))
    return connection.ending(1)


@contextmanager
def idle_label(running: Serving, *pairs: tuple[str, str]) -> Iterator[RawConnection]:
    """A Label call that sends options and nothing more."""
    with RawConnection(running.address) as connection:
        options = LabelRequest(options=LabelOptions(model="tiny")).SerializeToString()
        headers = connection.headers(1, [*request_headers(LABEL), *pairs])
        connection.send(headers, frame(DATA, 0, 1, message(options)))
        yield connection


def test_readers_that_stop_give_all_places_back_and_learn_of_it_when_they_read_on(
    bundles: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    places = 4
    with (
        serving([bundles["tiny"]], max_streams=places, stall_limit_s=LIMIT_S) as running,
        stopped_reader(running, count=places) as connection,
    ):
        abandoned = wait_for_lines(caplog, places)
        active(running, 0)
        after = collect(running.stub().Generate(make_request(), timeout=TIMEOUT_S))
        ending = read_on(connection)

    assert after.indices == [0, 1, 2, 3, 4]
    assert ending == "grpc-status 14"
    assert all(fields["rpc"] == "Generate" and "no message was taken" in fields["message"] for fields in abandoned)


def test_reader_that_stops_is_told_where_to_go_on(bundles: dict[str, Path]) -> None:
    request = make_request(max_accepted=None, endless=True, output={"fields": EVERY_FIELD})
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4096)]
    with (
        serving([bundles["tiny"]], stall_limit_s=LIMIT_S) as running,
        grpc.insecure_channel(running.address, options=small_window) as channel,
    ):
        stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
        call = stub.Generate(request, timeout=TIMEOUT_S)
        first = next(call)
        active(running, 0)
        failure = expect_failure(call)

    indices = [index for batch in (first, *failure.batches) for index in batch.indices]
    assert failure.code == "UNAVAILABLE"
    assert failure.detail is not None
    assert indices == list(range(failure.detail.next_index))


@pytest.mark.parametrize("shared_memory_bytes", [None, 1 << 16], ids=["messages", "shared memory"])
def test_client_that_pauses_goes_on_by_itself_without_a_gap(
    bundles: dict[str, Path], shared_memory_bytes: int | None
) -> None:
    settings = {"stall_limit_s": LIMIT_S, "shared_memory_folder": FOLDER}
    request: dict[str, Any] = {"seed": 7, "fields": ("image", "mask", "uncertainty_map")}  # Any: of every type
    count = 60 if shared_memory_bytes else 6000  # more than a ring, or gRPC's window, holds
    with serving([bundles["tiny"]], **settings) as running, Client(running.address) as client:
        with client.generate("tiny", count=count, shared_memory_bytes=shared_memory_bytes, **request) as stream:
            paused = [next(stream)]
            active(running, 0)
            paused.extend(stream)
            num_reconnects = stream.num_reconnects
        last = list(client.generate("tiny", start_index=count - 20, count=20, **request))

    assert num_reconnects >= 1
    assert [sample.index for sample in paused] == list(range(count))
    for one, other in zip(paused[-20:], last, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert one.mask.tobytes() == other.mask.tobytes()


def test_label_caller_who_sends_nothing_more_is_ended_with_the_next_row(bundles: dict[str, Path]) -> None:
    caller = SilentCaller()
    requests = [LabelRequest(options=LabelOptions(model="tiny"), z=tensor_from_array(make_z(6)))]

    def send() -> Iterator[LabelRequest]:
        yield from requests
        yield from caller

    with serving([bundles["tiny"]], stall_limit_s=LIMIT_S) as running:
        with idle_label(running) as connection:
            assert connection.ending(1) == "grpc-status 14"
        failure = expect_failure(running.stub().Label(send(), timeout=TIMEOUT_S))
        active(running, 0)
        caller.release()

    assert failure.code == "UNAVAILABLE"
    assert failure.detail is not None
    assert failure.detail.next_index == 6
    assert "no latents came for 0.3 s" in failure.text


def test_stream_that_waits_for_the_engine_is_not_ended(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model], stall_limit_s=LIMIT_S) as running:
        label = iter([LabelRequest(options=LabelOptions(model="tiny"), z=tensor_from_array(make_z(3)))])
        calls = [
            running.stub().Generate(make_request(), timeout=TIMEOUT_S),
            running.stub().Label(label, timeout=TIMEOUT_S),
        ]
        active(running, 2)
        engine.wait_until_begun()
        with idle_label(running) as clock:  # began later, and is ended after the limit
            assert clock.ending(1) == "grpc-status 14"
        engine.let_all()
        indices = [collect(call).indices for call in calls]

    assert indices == [[0, 1, 2, 3, 4], [0, 1, 2]]


def withdraw(clients: ClientFile) -> None:
    clients.write(good={})


def expire(clients: ClientFile) -> None:
    clients.write(good={}, bad={"expires": (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()})


@pytest.mark.parametrize("end_token", [withdraw, expire])
def test_streams_of_a_token_that_ends_give_their_places_back_though_nobody_reads_or_sends(
    bundles: dict[str, Path], tmp_path: Path, end_token: Callable[[ClientFile], None]
) -> None:
    clients = ClientFile(tmp_path / "clients.toml", good={}, bad={"max_streams": 3})
    with serving([bundles["tiny"]], tokens=clients.path, max_streams=3) as running, ExitStack() as stack:
        pairs = clients.of("bad")
        stopped = stack.enter_context(stopped_reader(running, *pairs, count=2))
        label = stack.enter_context(idle_label(running, *pairs))
        active(running, 3)
        end_token(clients)
        ending = label.ending(1)
        active(running, 0)
        good = running.stub().Generate(make_request(), metadata=clients.of("good"), timeout=TIMEOUT_S)
        indices = collect(good).indices
        told = read_on(stopped)

    assert (ending, told) == ("grpc-status 16", "grpc-status 16")
    assert indices == [0, 1, 2, 3, 4]
