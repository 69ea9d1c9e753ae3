"""Traces: a real server sends real spans to a real collector, over sockets."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from labelmint.addresses import latents
from labelmint.v1 import service_pb2
from labelmint.v1.admin_pb2 import ListRepositoryRequest
from labelmint_service.errors import StartError
from labelmint_service.tracing.opening import open_tracing
from labelmint_service.tracing.telemetry import MOST_STAGES
from tests.service.calls import TIMEOUT_S, collect, expect_failure, make_request
from tests.service.collector import CollectedSpan, Collector, collecting
from tests.service.reading import wait_for_metric
from tests.service.scripted_engine import scripted_model
from tests.service.server_process import run_server, server_process
from tests.serving import serving

GENERATE = "labelmint.v1.LabelMint/Generate"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ERROR = trace_pb2.Status.STATUS_CODE_ERROR


def traceparent(*, sampled: bool) -> tuple[str, str]:
    return "traceparent", f"00-{TRACE_ID}-{SPAN_ID}-{'01' if sampled else '00'}"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as running:
        yield running


def tracing(collector: Collector, **settings: object) -> dict[str, object]:
    return {"tracing": True, "tracing_endpoint": f"http://{collector.address}", **settings}


def children(spans: list[CollectedSpan], parent: CollectedSpan) -> list[CollectedSpan]:
    return [span for span in spans if span.parent_id == parent.span_id]


def one(spans: list[CollectedSpan], name: str) -> CollectedSpan:
    [found] = [span for span in spans if span.name == name]
    return found


def test_call_is_a_span_below_the_caller_s_with_its_stages_below_it(
    bundles: dict[str, Path], collector: Collector
) -> None:
    with serving([bundles["tiny"]], **tracing(collector)) as running:
        metadata = (traceparent(sampled=True), ("labelmint-request-id", "request-1"))
        samples = collect(running.stub().Generate(make_request(max_accepted=3), metadata=metadata, timeout=TIMEOUT_S))
    spans = collector.spans()
    call = one(spans, GENERATE)

    assert (call.trace_id, call.parent_id) == (TRACE_ID, SPAN_ID)
    assert call.message.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert call.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "labelmint.v1.LabelMint",
        "rpc.method": "Generate",
        "rpc.response.status_code": "OK",
        "labelmint.request_id": "request-1",
        "labelmint.model": "tiny",
        "labelmint.start_index": "0",
        "labelmint.next_index": "3",
        "labelmint.samples": len(samples.indices),
    }
    assert call.resource["service.name"] == "labelmint"
    stages = children(spans, call)
    assert [span.name for span in stages] == ["queue", "compute", "encode", "send"]
    assert {span.attributes["labelmint.rows"] for span in stages} == {3}
    assert {span.trace_id for span in stages} == {TRACE_ID}


def test_call_of_an_operator_is_a_span_of_the_admin_service(tmp_path: Path, collector: Collector) -> None:
    settings = {"model_repository": tmp_path, "repository_mode": "explicit", "admin_port": 0}
    with serving([], **tracing(collector, **settings)) as running:
        running.admin().ListRepository(ListRepositoryRequest(), timeout=TIMEOUT_S)
    [call] = collector.spans()

    assert call.name == "labelmint.v1.LabelMintAdmin/ListRepository"
    assert call.attributes["rpc.service"] == "labelmint.v1.LabelMintAdmin"


def test_times_of_the_stages_follow_each_other_within_the_call(bundles: dict[str, Path], collector: Collector) -> None:
    with serving([bundles["tiny"]], **tracing(collector)) as running:
        collect(running.stub().Generate(make_request(max_accepted=3), timeout=TIMEOUT_S))
    spans = collector.spans()
    call = one(spans, GENERATE).message
    queue, compute, encode, send = (one(spans, name).message for name in ("queue", "compute", "encode", "send"))
    slack_ns = 2_000_000  # each time is told by two clocks that are read one after the other

    assert call.start_time_unix_nano <= queue.start_time_unix_nano + slack_ns
    assert abs(queue.end_time_unix_nano - compute.start_time_unix_nano) <= slack_ns
    assert compute.end_time_unix_nano <= encode.start_time_unix_nano + slack_ns
    assert encode.end_time_unix_nano <= send.start_time_unix_nano + slack_ns
    assert send.end_time_unix_nano <= call.end_time_unix_nano + slack_ns


def test_batch_is_linked_to_the_calls_whose_rows_it_holds_and_they_to_it(
    bundles: dict[str, Path], collector: Collector
) -> None:
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model], **tracing(collector)) as running:
        plug = running.stub().Generate(make_request(max_accepted=4), timeout=TIMEOUT_S)
        engine.wait_until_begun()  # from now on rows of others meet in the next batch
        calls = [
            running.stub().Generate(
                make_request(seed=seed, start_index=2**63 + seed, max_accepted=2),
                metadata=(("labelmint-request-id", f"request-{seed}"),),
                timeout=TIMEOUT_S,
            )
            for seed in (1, 2)
        ]
        for call in calls:
            call.initial_metadata()
        wait_for_metric(running, "labelmint_queued_rows", "tiny", 8)
        engine.let_all()
        for call in (plug, *calls):
            collect(call)
    spans = collector.spans()
    shared = next(span for span in spans if span.name == "batch" and len(span.links) == 2)
    requests = {
        span.attributes["labelmint.request_id"]: span
        for span in spans
        if span.name == GENERATE and span.attributes["labelmint.request_id"].startswith("request-")
    }

    assert shared.parent_id == ""
    assert shared.trace_id not in {span.trace_id for span in requests.values()}
    assert (shared.attributes["labelmint.model"], shared.attributes["labelmint.rows"]) == ("tiny", 4)
    assert shared.attributes["labelmint.streams"] == 2
    assert shared.links == {
        requests[f"request-{seed}"].span_id: {
            "labelmint.request_id": f"request-{seed}",
            "labelmint.rows": 2,
            "labelmint.first_index": str(2**63 + seed),
            "labelmint.last_index": str(2**63 + seed + 1),
        }
        for seed in (1, 2)
    }
    for request in requests.values():
        compute = next(span for span in children(spans, request) if span.name == "compute")
        assert set(compute.links) == {shared.span_id}


def test_caller_that_is_not_sampled_sends_no_span_and_links_no_batch(
    bundles: dict[str, Path], collector: Collector
) -> None:
    with serving([bundles["tiny"]], **tracing(collector)) as running:
        stub = running.stub()
        collect(stub.Generate(make_request(), metadata=(traceparent(sampled=False),), timeout=TIMEOUT_S))
        collect(stub.Generate(make_request(), timeout=TIMEOUT_S))
    spans = collector.spans()

    assert TRACE_ID not in {span.trace_id for span in spans}
    assert len([span for span in spans if span.name == GENERATE]) == 1
    assert {len(span.links) for span in spans if span.name == "batch"} == {1}


def test_ratio_of_zero_traces_only_calls_whose_caller_asks(bundles: dict[str, Path], collector: Collector) -> None:
    with serving([bundles["tiny"]], **tracing(collector, tracing_ratio=0.0)) as running:
        stub = running.stub()
        collect(stub.Generate(make_request(), timeout=TIMEOUT_S))
        collect(stub.Generate(make_request(), metadata=(traceparent(sampled=True),), timeout=TIMEOUT_S))

    assert [span.trace_id for span in collector.spans(GENERATE)] == [TRACE_ID]


def test_variables_of_opentelemetry_say_what_settings_do_not(
    bundles: dict[str, Path], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.address}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=mint")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "streams")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    with serving([bundles["tiny"]], tracing=True) as running:
        stub = running.stub()
        collect(stub.Generate(make_request(), timeout=TIMEOUT_S))
        collect(stub.Generate(make_request(), metadata=(traceparent(sampled=True),), timeout=TIMEOUT_S))

    [call] = collector.spans(GENERATE)
    assert (call.trace_id, call.resource["service.name"]) == (TRACE_ID, "streams")
    assert collector.headers["x-tenant"] == "mint"


def test_failed_run_is_recorded_in_batch_and_call(bundles: dict[str, Path], collector: Collector) -> None:
    model, engine = scripted_model(bundles["tiny"])
    engine.fails = lambda z: True
    with serving([model], **tracing(collector)) as running:
        failure = expect_failure(running.stub().Generate(make_request(), timeout=TIMEOUT_S))
    spans = collector.spans()

    assert failure.code == "INTERNAL"
    for name, kind in ((GENERATE, "INTERNAL"), ("batch", "EngineRunError"), ("compute", "EngineRunError")):
        span = one(spans, name)
        assert span.message.status.code == ERROR
        assert "the script says so" in span.message.status.message
        assert span.attributes["error.type"] == kind
        [event] = span.message.events
        assert event.name == "exception"


def test_refused_request_names_the_error_and_does_not_count_as_a_fault(
    bundles: dict[str, Path], collector: Collector
) -> None:
    with serving([bundles["tiny"]], **tracing(collector)) as running:
        expect_failure(running.stub().Generate(make_request(model="none"), timeout=TIMEOUT_S))
    call = one(collector.spans(), GENERATE)

    assert call.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert call.message.status.code != ERROR
    assert "no" in str(call.message.events[0].attributes)


def test_label_is_traced_as_generate_is(bundles: dict[str, Path], collector: Collector) -> None:
    with serving([bundles["tiny"]], **tracing(collector)) as running:
        z = latents(1, range(2), 8)  # type: ignore[arg-type]  # any sequence of indices
        tensor = service_pb2.Tensor(dtype=service_pb2.DTYPE_FLOAT32, shape=z.shape, data=z.tobytes())
        request = service_pb2.LabelRequest(options=service_pb2.LabelOptions(model="tiny"), z=tensor)
        collect(running.stub().Label(iter([request]), timeout=TIMEOUT_S))
    spans = collector.spans()

    assert {span.name for span in children(spans, one(spans, "labelmint.v1.LabelMint/Label"))} == {
        "queue",
        "compute",
        "encode",
        "send",
    }


def test_long_stream_sends_its_first_stages_and_says_how_many_it_kept(
    bundles: dict[str, Path], collector: Collector
) -> None:
    with serving([bundles["tiny"]], **tracing(collector)) as running:
        collect(running.stub().Generate(make_request(max_accepted=4 * 120), timeout=TIMEOUT_S))
    spans = collector.spans()
    call = one(spans, GENERATE)

    assert len(children(spans, call)) == MOST_STAGES
    assert call.attributes["labelmint.stages_not_sent"] == 4 * 120 - MOST_STAGES


def test_log_lines_and_metrics_lead_to_the_trace(
    tmp_path: Path, bundles: dict[str, Path], collector: Collector
) -> None:
    flags = [
        "--log-format",
        "json",
        "--log-level",
        "debug",
        "--tracing",
        "--tracing-endpoint",
        f"http://{collector.address}",
    ]
    with server_process(tmp_path, "--bundle", str(bundles["tiny"]), *flags) as running:
        metadata = (traceparent(sampled=True), ("labelmint-request-id", "request-9"))
        collect(running.stub().Generate(make_request(), metadata=metadata, timeout=TIMEOUT_S))
        url = json.loads(running.ready_file.read_text())["metrics"]
        asked = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:
            metrics = answer.read().decode()
        spans = collector.wait_for(lambda found: any(span.name == GENERATE for span in found))
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    of_the_call = [line for line in lines if line.get("request_id") == "request-9"]

    assert {line["event"] for line in of_the_call} == {"call.begin", "call.end"}
    assert {(line["trace_id"], line["span_id"]) for line in of_the_call} == {(TRACE_ID, one(spans, GENERATE).span_id)}
    assert of_the_call[-1]["model"] == "tiny"
    exemplars = {
        sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(metrics)  # type: ignore[no-untyped-call]  # the stubs lack it
        if family.name == "labelmint_stage_seconds"
        for sample in family.samples
        if sample.exemplar
    }
    assert exemplars == {TRACE_ID}


def test_collector_that_is_not_there_stops_neither_calls_nor_the_end(tmp_path: Path, bundles: dict[str, Path]) -> None:
    with collecting() as gone:
        address = gone.address
    flags = ["--log-format", "json", "--tracing", "--tracing-endpoint", f"http://{address}"]
    with server_process(tmp_path, "--bundle", str(bundles["tiny"]), *flags) as running:
        samples = collect(running.stub().Generate(make_request(), timeout=TIMEOUT_S))
        running.process.terminate()
        status = running.process.wait(20)
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]

    assert (len(samples.indices), status) == (5, 0)
    assert any(line["event"] == "tracing.export" and address in line["message"] for line in lines)


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_COMPRESSION"])
def test_variable_that_cannot_be_used_keeps_the_server_from_starting(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "smoke")
    with pytest.raises(StartError, match=name) as caught:
        open_tracing(is_on=True, endpoint=None, ratio=None)

    assert caught.value.field == "tracing"


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [
        module for module in sys.modules if module.startswith(("opentelemetry", "labelmint_service.tracing."))
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(StartError, match=r"pip install 'labelmint\[tracing\]'"):
        open_tracing(is_on=True, endpoint=None, ratio=None)


def test_server_that_does_not_trace_does_not_load_the_library(bundles: dict[str, Path]) -> None:
    code = (
        "import sys, labelmint_service.server, labelmint_client\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.strip() == "[]"


def test_endpoint_without_tracing_is_refused() -> None:
    done = run_server("--tracing-endpoint", "http://127.0.0.1:4317")

    assert done.returncode == 2
    assert "tracing is off" in done.stderr
