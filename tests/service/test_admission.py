"""Admission: what a new stream would have to wait, and who is refused for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from labelmint.v1 import service_pb2
from labelmint_service.errors import LateError, QueueFullError
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.scheduling.admission import Queue, WaitingRoom
from labelmint_service.scheduling.rows import Entry
from labelmint_service.scheduling.turns import Turns
from tests.service.calls import TIMEOUT_S, collect, describe_failure, make_request
from tests.service.reading import read_metrics, wait_for_metric
from tests.service.scripted_engine import scripted_model
from tests.serving import Serving, serving

BATCH_SIZE = 4
SECOND_NS = 1_000_000_000


@dataclass(eq=False)
class Waiter:
    client: str = ""
    priority: int = 0
    deadline_s: float | None = None
    entry: Entry = Entry.LATENTS


def make_queue(*, max_streams: int = 1000, max_wait_s: float = 1000.0, batch_s: float | None = 1.0) -> Queue[Waiter]:
    queue = Queue[Waiter]("tiny", WaitingRoom(max_streams=max_streams), max_wait_s, ServiceMetrics())
    if batch_s is not None:
        queue.note_batch(int(batch_s * SECOND_NS))
    return queue


def fill(queue: Queue[Waiter], count: int) -> list[Waiter]:
    """Streams that wait behind two batches."""
    waiters = [Waiter() for _ in range(count)]
    for waiter in waiters:
        queue.admit(waiter, rows_taken=2 * BATCH_SIZE, rows_at_once=BATCH_SIZE)
    return waiters


def admit(queue: Queue[Waiter], waiter: Waiter | None = None, rows_taken: int = 2 * BATCH_SIZE) -> None:
    queue.admit(waiter or Waiter(), rows_taken=rows_taken, rows_at_once=BATCH_SIZE)


def test_free_engine_lets_everybody_in() -> None:
    queue = make_queue(max_streams=1, max_wait_s=0.001)
    for _ in range(10):
        admit(queue, Waiter(deadline_s=time.monotonic() - 1.0), rows_taken=0)


def test_wait_grows_with_those_who_wait_and_with_the_time_of_a_batch() -> None:
    queue = make_queue(max_wait_s=5.0, batch_s=1.0)
    fill(queue, 12)  # they and the two batches at hand are five batches
    admit(queue)
    with pytest.raises(QueueFullError) as caught:
        admit(queue)

    assert caught.value.retry_after_s == pytest.approx(1.0), "a batch, for less than one is too much"
    assert "13 streams of model 'tiny' wait for their turn" in str(caught.value)


def test_wait_is_that_of_all_engines_together() -> None:
    queue = make_queue(max_wait_s=5.0, batch_s=2.0)
    taken, rows_at_once = 5 * BATCH_SIZE, 4 * BATCH_SIZE  # four engines at work, and the batch that is next
    for _ in range(20):  # five batches
        queue.admit(Waiter(), rows_taken=taken, rows_at_once=rows_at_once)
    queue.admit(Waiter(), rows_taken=taken, rows_at_once=rows_at_once)
    with pytest.raises(QueueFullError, match=r"after 5\.1 s"):
        queue.admit(Waiter(), rows_taken=taken, rows_at_once=rows_at_once)
    queue.leave(next(iter(queue._since_ns)))
    queue.admit(Waiter(deadline_s=time.monotonic() + 3.0), rows_taken=taken, rows_at_once=rows_at_once)


def test_rows_of_another_entry_have_batches_of_their_own() -> None:
    queue = make_queue(max_wait_s=5.0, batch_s=1.0)
    for _ in range(8):
        queue.admit(Waiter(entry=Entry.STYLES), rows_taken=2 * BATCH_SIZE, rows_at_once=BATCH_SIZE)
    admit(queue)  # behind two batches at hand, two of styles, and one more whose entry nobody knows
    with pytest.raises(QueueFullError, match=r"after 5\.2 s"):
        admit(queue)


def test_retry_hint_is_what_the_wait_is_too_long_by() -> None:
    queue = make_queue(max_wait_s=30.0, batch_s=2.0)
    fill(queue, 52)
    for _ in range(16):
        queue.note_batch(4 * SECOND_NS)
    with pytest.raises(QueueFullError) as caught:
        admit(queue)

    assert caught.value.retry_after_s == pytest.approx((52 + 8) / 4 * 4.0 - 30.0)


def test_room_is_shared_by_all_models_and_free_again_when_streams_leave() -> None:
    room, metrics = WaitingRoom(max_streams=3), ServiceMetrics()
    first, second = (Queue[Waiter](name, room, 1000.0, metrics) for name in ("a", "b"))
    waiters = fill(first, 2)
    [other] = fill(second, 1)
    for queue in (first, second):
        with pytest.raises(QueueFullError, match="3 streams of all models"):
            admit(queue)
    second.leave(other)
    admit(first)
    for waiter in waiters:
        first.end_wait(waiter)
    first.note_ready(dict.fromkeys(waiters, 1), waiters)
    admit(second)

    assert room.num_streams == 2


def test_versions_of_a_model_wait_apart_and_are_counted_together() -> None:
    room, metrics = WaitingRoom(max_streams=1000), ServiceMetrics()
    old, new = (Queue[Waiter]("tiny", room, 5.0, metrics) for _ in range(2))
    for queue in (old, new):
        queue.note_batch(SECOND_NS)
    waiters = fill(old, 13)  # one more would be too many there
    fill(new, 2)
    gauge = metrics.waiting_streams.labels("tiny")
    with pytest.raises(QueueFullError, match="13 streams of model 'tiny' wait"):
        admit(old)
    assert gauge._value.get() == room.num_streams == 15
    for waiter in waiters:
        old.leave(waiter)

    assert gauge._value.get() == room.num_streams == 2


def test_stream_waits_from_when_it_is_ready_and_without_rows_until_its_turn() -> None:
    queue = make_queue()
    served, waiting, slow = Waiter(), Waiter(), Waiter()
    queue.note_ready({served: 4, waiting: 4, slow: 0}, {served})
    queue.note_ready({served: 4, waiting: 4, slow: 0}, {served})
    assert queue._room.num_streams == 1
    assert queue.end_wait(waiting) > 0
    assert queue.end_wait(served) == 0
    queue.note_ready({served: 4, waiting: 4, slow: 0}, {served, waiting})
    assert queue._room.num_streams == 0


def test_stream_whose_reader_stops_waits_no_longer() -> None:
    queue = make_queue()
    waiting = Waiter()
    queue.note_ready({waiting: 1}, set())
    queue.note_ready({waiting: 0}, set())

    assert queue._room.num_streams == 0


@pytest.mark.parametrize(("left_s", "is_refused"), [(0.9, True), (1.6, False)])
def test_deadline_that_even_fast_batches_miss_is_refused(left_s: float, is_refused: bool) -> None:
    queue = make_queue(batch_s=5.0)
    queue.note_batch(SECOND_NS)
    fill(queue, 3)
    try:
        admit(queue, Waiter(deadline_s=time.monotonic() + left_s))
    except LateError as error:
        assert is_refused
        assert "would come after 2.00 s at best" in str(error)
    else:
        assert not is_refused


def test_deadline_is_not_judged_before_the_first_batch() -> None:
    admit(make_queue(batch_s=None), Waiter(deadline_s=time.monotonic() + 0.001))


WAITERS = st.builds(
    Waiter, client=st.sampled_from(["", "a", "b"]), priority=st.integers(0, 1), entry=st.sampled_from(list(Entry))
)


@given(others=st.lists(WAITERS, max_size=12), new=WAITERS, phase=st.integers(0, 20))
def test_rows_ahead_at_least_are_no_more_than_turns_give_to_others(
    others: list[Waiter], new: Waiter, phase: int
) -> None:
    turns, queue = Turns[Waiter](), make_queue()
    for waiter in others:
        turns.add(waiter)
    turns.share(phase, None, dict.fromkeys(others, 100))  # wherever the turns stand
    queue.note_ready(dict.fromkeys(others, 1), set())
    turns.add(new)
    left, rows_before = dict.fromkeys([*others, new], 1), 0
    while new not in (share := turns.share(1, None, left)):
        rows_before += 1
        left[next(iter(share))] = 0

    assert queue._rows_ahead(new, at_most=False) <= rows_before
    if not any(waiter.priority for waiter in (*others, new)) and {waiter.entry for waiter in others} <= {new.entry}:
        assert rows_before <= queue._rows_ahead(new, at_most=True)
        if not new.client:
            assert rows_before == queue._rows_ahead(new, at_most=True)


# --- over the wire ----------------------------------------------------------------------------------------------------


def fail(running: Serving, **fields: object) -> tuple[str, str, list[error_details_pb2.RetryInfo]]:
    """Code, text and retry hints of a call that must fail."""
    timeout_s = fields.pop("timeout_s", TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        collect(running.stub().Generate(make_request(**fields), timeout=timeout_s))
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it is a Call too, which the stubs rule out
    hints = []
    for detail in status.details if status is not None else ():
        hints.append(error_details_pb2.RetryInfo())
        assert detail.Unpack(hints[-1])
    failure = describe_failure(caught.value)
    return failure.code, failure.text, hints


def ends(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:  # Any: fields of every type
    """Last lines of calls that ended well, in whatever order they did."""
    fields = [vars(record)["labelmint_fields"] for record in caplog.records if record.getMessage() == "call.end"]
    return [one for one in fields if one["code"] == "OK"]


def start(running: Serving, count: int) -> list[Iterable[service_pb2.SampleBatch]]:
    """Streams of one batch each, begun one after the other."""
    return [running.stub().Generate(make_request(max_accepted=BATCH_SIZE), timeout=TIMEOUT_S) for _ in range(count)]


def test_full_queue_refuses_with_a_retry_hint_and_serves_those_who_wait(
    bundles: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="labelmint_service")
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model], max_waiting_streams=2) as running:
        calls = start(running, 1)
        engine.wait_until_begun()
        calls += start(running, 1)
        wait_for_metric(running, "labelmint_queued_rows", "tiny", 8)  # both batches at hand are full
        calls += start(running, 2)
        wait_for_metric(running, "labelmint_waiting_streams", "tiny", 2)
        code, text, hints = fail(running)
        during = read_metrics(running)
        engine.let_all()
        served = [collect(call).indices for call in calls]
        waited_s = sorted(fields["turn_s"] for fields in ends(caplog))
        after = read_metrics(running)

    assert (code, len(hints)) == ("RESOURCE_EXHAUSTED", 1)
    assert "2 streams of all models wait" in text
    assert hints[0].retry_delay.ToMilliseconds() > 0
    assert during["labelmint_streams_refused_total", "max_waiting_streams", "tiny"] == 1
    assert served == [list(range(BATCH_SIZE))] * 4
    assert max(waited_s[:2]) < 0.1
    assert min(waited_s[2:]) > 0
    assert after["labelmint_waiting_streams", "tiny"] == 0
    assert after["labelmint_turn_wait_seconds_count", "tiny"] >= 4
    assert after["labelmint_turn_wait_seconds_sum", "tiny"] > 0


def test_wait_that_would_be_too_long_is_refused(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["tiny"])
    with serving([model], max_wait_s=1e-6) as running:
        collect(running.stub().Generate(make_request(), timeout=TIMEOUT_S))  # now the time of a batch is known
        engine.hold()
        [call] = start(running, 1)
        engine.wait_until_begun()
        code, text, hints = fail(running)
        engine.let_all()
        collect(call)

    assert (code, len(hints)) == ("RESOURCE_EXHAUSTED", 1)
    assert "expected at most 1e-06 s" in text


def test_deadline_that_cannot_be_met_is_refused_before_it_has_passed(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["tiny"])
    with serving([model]) as running:
        engine.hold()
        call = running.stub().Generate(make_request(max_accepted=4), timeout=TIMEOUT_S)
        engine.wait_until_begun()
        time.sleep(2.0)  # the only batch whose time is known is that slow
        engine.let_all()
        collect(call)
        engine.hold()
        [call] = start(running, 1)
        engine.wait_until_begun()
        began_s = time.monotonic()
        code, text, hints = fail(running, timeout_s=0.9)
        took_s = time.monotonic() - began_s
        metrics = read_metrics(running)
        engine.let_all()
        collect(call)

    assert (code, hints) == ("DEADLINE_EXCEEDED", [])
    assert "at best; allow more time" in text
    assert took_s < 0.85
    assert metrics["labelmint_streams_refused_total", "deadline", "tiny"] == 1


def test_streams_above_max_streams_are_counted_as_refused(bundles: dict[str, Path]) -> None:
    with serving([bundles["tiny"]], max_streams=1) as running:
        call = running.stub().Generate(make_request(max_accepted=None, endless=True), timeout=TIMEOUT_S)
        next(call)
        code, _, _ = fail(running)
        metrics = read_metrics(running)
        call.cancel()

    assert code == "RESOURCE_EXHAUSTED"
    assert metrics["labelmint_streams_refused_total", "max_streams", "tiny"] == 1
