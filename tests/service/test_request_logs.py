"""Log lines lead to the request that they are about, and from its last line to where its time went."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from labelmint.v1 import service_pb2_grpc
from labelmint_service.wire import line_limit
from labelmint_service.wire.line_limit import LineLimit
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, collect, expect_failure, make_request
from tests.service.reading import read_metrics, wait_for_metric
from tests.service.scripted_engine import scripted_model
from tests.service.server_process import server_process
from tests.serving import serving


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:  # Any: fields of every type
    return [vars(record)["labelmint_fields"] for record in caplog.records if record.getMessage() == event]


def test_failed_run_names_the_requests_whose_rows_it_held(
    bundles: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="labelmint_service")
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model]) as running:
        plug = running.stub().Generate(make_request(max_accepted=4), timeout=TIMEOUT_S)
        engine.wait_until_begun()
        calls = []
        for number in (1, 2):
            metadata = (("labelmint-request-id", f"request-{number}"),)
            request = make_request(seed=number, max_accepted=2)
            calls.append(running.stub().Generate(request, metadata=metadata, timeout=TIMEOUT_S))
            wait_for_metric(running, "labelmint_queued_rows", "tiny", 4 + 2 * number)
        engine.fails = lambda z: len(engine.runs) > 1
        engine.let_all()
        collect(plug)
        for call in calls:
            expect_failure(call)

    # The whole batch, then each stream alone.
    assert [fields["request_ids"] for fields in lines(caplog, "engine.error")] == [
        "request-1,request-2",
        "request-1",
        "request-2",
    ]
    for event in ("call.error", "call.end"):
        of_them = {fields["request_id"]: fields for fields in lines(caplog, event)}
        for number in (1, 2):
            fields = of_them[f"request-{number}"]
            assert (fields["model"], fields["code"], fields["samples"]) == ("tiny", "INTERNAL", 0)


def test_last_line_of_a_call_says_where_its_time_went(tmp_path: Path, bundles: dict[str, Path]) -> None:
    flags = ["--bundle", str(bundles["tiny"]), "--log-format", "json", "--log-level", "debug"]
    with server_process(tmp_path, *flags) as running:
        stub = running.stub()
        collect(stub.Generate(make_request(), metadata=(("labelmint-request-id", "good"),), timeout=TIMEOUT_S))
        bad = make_request(model="none")
        expect_failure(stub.Generate(bad, metadata=(("labelmint-request-id", "bad"),), timeout=TIMEOUT_S))
        running.process.terminate()
        assert running.wait() == 0
    found = [json.loads(line) for line in running.log.read_text(encoding="utf-8").splitlines()]
    by_request = {name: [line for line in found if line.get("request_id") == name] for name in ("good", "bad")}

    assert [line["event"] for line in by_request["good"]] == ["call.begin", "call.end"]
    assert [line["event"] for line in by_request["bad"]] == ["call.begin", "call.error", "call.end"]
    assert all(line["rpc"] == "Generate" for of_one in by_request.values() for line in of_one)
    end = by_request["good"][-1]
    assert (end["model"], end["samples"], end["code"]) == ("tiny", 5, "OK")
    stages = [end[f"{stage}_s"] for stage in ("turn", "queue", "compute", "encode", "send")]
    assert all(0 <= spent_s <= end["duration_s"] for spent_s in stages)
    assert [line["event"] for line in found if "request_id" not in line and line["event"].startswith("call.")] == []


def test_lines_of_one_request_carry_nothing_of_another(
    bundles: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="labelmint_service")
    with serving([bundles["tiny"], bundles["classy"]]) as running:
        stub = running.stub()
        calls = [
            stub.Generate(
                make_request(model=model, max_accepted=40),
                metadata=(("labelmint-request-id", f"{model}-{number}"),),
                timeout=TIMEOUT_S,
            )
            for number in range(4)
            for model in ("tiny", "classy")
        ]
        for call in calls:
            collect(call)
    ends = lines(caplog, "call.end")

    assert len(ends) == 8
    assert all(fields["request_id"].partition("-")[0] == fields["model"] for fields in ends)


def test_call_that_ran_out_of_time_is_told_from_one_whose_caller_left(
    bundles: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="labelmint_service")
    endless = make_request(max_accepted=None, endless=True)
    with serving([bundles["tiny"]]) as running:
        late = running.stub().Generate(endless, metadata=(("labelmint-request-id", "late"),), timeout=1.0)
        assert expect_failure(late).code == "DEADLINE_EXCEEDED"
        left = running.stub().Generate(endless, metadata=(("labelmint-request-id", "left"),), timeout=TIMEOUT_S)
        next(left)
        left.cancel()

    ends = {fields["request_id"]: fields for fields in lines(caplog, "call.end")}
    assert (ends["late"]["code"], ends["left"]["code"]) == ("DEADLINE_EXCEEDED", "CANCELLED")
    assert ends["left"]["peer"].startswith("ipv4:127.0.0.1:")


def test_time_that_a_stopped_reader_lets_the_server_wait_is_in_the_last_line(
    bundles: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="labelmint_service")
    request = make_request(max_accepted=None, endless=True, output={"fields": EVERY_FIELD})
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4096)]
    with (
        serving([bundles["tiny"]], stream_queue_batches=2) as running,
        grpc.insecure_channel(running.address, options=small_window) as channel,
    ):
        stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
        call = stub.Generate(request, timeout=TIMEOUT_S)
        next(call)
        sent = -1.0
        while sent != (sent := read_metrics(running).get(("labelmint_samples_sent_total", "tiny"), 0.0)):
            time.sleep(1.0)  # until nothing went into the reader's window for so long
        call.cancel()

    [end] = lines(caplog, "call.end")
    assert end["send_s"] >= 0.9


def test_calls_that_are_refused_without_end_are_counted_in_place_of_lines() -> None:
    now_s = 0.0
    limit = LineLimit(lambda: now_s)
    limit.most = 3
    first = [limit.admit("NOT_FOUND") for _ in range(5)]
    other = limit.admit("UNAUTHENTICATED")
    now_s = 1.0
    later = [limit.admit(code) for code in ("NOT_FOUND", "NOT_FOUND", "UNAUTHENTICATED")]

    assert first == [0, 0, 0, None, None]
    assert other == 0
    assert later == [2, 0, 0]


def test_flood_of_bad_requests_fills_no_log_and_errors_of_the_server_are_all_in_it(
    bundles: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="labelmint_service")
    monkeypatch.setattr(line_limit, "MOST_A_SECOND", 1)
    count = 40
    model, engine = scripted_model(bundles["tiny"])
    engine.fails = lambda z: True
    with serving([model]) as running:
        stub = running.stub()
        for request in (make_request(model="none"), make_request()):
            calls = [stub.Generate(request, timeout=TIMEOUT_S) for _ in range(count)]
            for call in calls:
                expect_failure(call)

    for event in ("call.error", "call.end"):
        codes = Counter(fields["code"] for fields in lines(caplog, event))
        assert 1 <= codes["NOT_FOUND"] < count, event
        assert codes["INTERNAL"] == count, event
