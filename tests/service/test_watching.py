"""What an operator and his tools see: health, reflection, metrics."""

import contextlib
import socket
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from labelmint_service.open_files import METRICS_CONNECTIONS
from tests.service.calls import TIMEOUT_S, collect, expect_failure, make_request
from tests.service.reading import read_metrics
from tests.service.scripted_engine import scripted_model
from tests.serving import Serving, serving

SERVICE = "labelmint.v1.LabelMint"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def fresh(bundles: dict[str, Path]) -> Iterator[Serving]:
    """A server that counted nothing yet."""
    with serving([bundles["tiny"]]) as running:
        yield running


def check_health(running: Serving, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(running.channel())
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status
    return status


@pytest.mark.parametrize("name", ["", SERVICE, "tiny", "classy"])
def test_health_is_serving_overall_and_for_each_model(served: Serving, name: str) -> None:
    assert check_health(served, name) == SERVING


def test_health_is_not_serving_while_the_server_drains(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model]) as running:
        call = running.stub().Generate(make_request(), timeout=TIMEOUT_S)
        engine.wait_until_begun()
        health = health_pb2_grpc.HealthStub(running.channel())
        watch = health.Watch(health_pb2.HealthCheckRequest(service="tiny"), timeout=TIMEOUT_S)
        assert next(watch).status == SERVING
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        during = next(watch).status
        checked = [check_health(running, name) for name in ("", SERVICE, "tiny")]
        engine.let_all()
        collect(call)  # all five samples were begun before the server was told to stop
        stopping.join()

    assert during == NOT_SERVING
    assert checked == [NOT_SERVING] * 3


def ask_reflection(running: Serving, **request: str) -> Any:  # Any: the stubs of this library lack types
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel())
    requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
    [answer] = stub.ServerReflectionInfo(requests, timeout=TIMEOUT_S)
    return answer


def test_reflection_lists_the_service(served: Serving) -> None:
    answer = ask_reflection(served, list_services="")

    assert SERVICE in [service.name for service in answer.list_services_response.service]


def test_reflection_describes_the_calls(served: Serving) -> None:
    answer = ask_reflection(served, file_containing_symbol=SERVICE)
    files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
    methods = {method.name for file in files for service in file.service for method in service.method}

    assert methods == {"ListModels", "GetModel", "Generate", "Label"}


def test_metrics_count_the_samples_of_a_stream(fresh: Serving) -> None:
    samples = collect(fresh.stub().Generate(make_request(max_accepted=6), timeout=TIMEOUT_S))
    metrics = read_metrics(fresh)

    assert metrics["labelmint_samples_sent_total", "tiny"] == len(samples.indices) == 6
    assert metrics["labelmint_samples_scanned_total", "tiny"] == 6
    assert metrics["labelmint_samples_rejected_total", "tiny"] == 0
    assert metrics["labelmint_bytes_sent_total", "tiny"] == sum(batch.ByteSize() for batch in samples.batches)


def test_metrics_count_what_a_filter_rejects(fresh: Serving) -> None:
    uncertainty = collect(fresh.stub().Generate(make_request(max_accepted=40), timeout=TIMEOUT_S)).arrays["uncertainty"]
    bound = np.sort(uncertainty)[9]  # ten samples are below it, or it
    request = make_request(filter={"max_uncertainty": float(bound)}, end_index=40, max_accepted=40)
    kept = collect(fresh.stub().Generate(request, timeout=TIMEOUT_S))
    metrics = read_metrics(fresh)

    assert metrics["labelmint_samples_rejected_total", "tiny"] == 40 - len(kept.indices) == 30
    assert metrics["labelmint_samples_scanned_total", "tiny"] == 80
    assert metrics["labelmint_samples_sent_total", "tiny"] == 50


def test_metrics_tell_how_full_batches_are(fresh: Serving) -> None:
    collect(fresh.stub().Generate(make_request(max_accepted=6), timeout=TIMEOUT_S))
    metrics = read_metrics(fresh)
    name = "labelmint_batch_fill_ratio"

    assert (metrics[f"{name}_count", "tiny"], metrics[f"{name}_sum", "tiny"]) == (2, 4 / 4 + 2 / 4)
    assert [metrics[f"{name}_bucket", bound, "tiny"] for bound in ("0.375", "0.5", "0.875", "1.0")] == [0, 1, 1, 2]


def test_metrics_count_the_calls_by_their_code(fresh: Serving) -> None:
    collect(fresh.stub().Generate(make_request(), timeout=TIMEOUT_S))
    expect_failure(fresh.stub().Generate(make_request(seed=None), timeout=TIMEOUT_S))
    metrics = read_metrics(fresh)

    assert metrics["labelmint_requests_total", "OK", "Generate"] == 1
    assert metrics["labelmint_requests_total", "INVALID_ARGUMENT", "Generate"] == 1


def test_metrics_show_a_stream_while_it_is_in_work(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model]) as running:
        call = running.stub().Generate(make_request(), timeout=TIMEOUT_S)
        engine.wait_until_begun()
        during = read_metrics(running)
        engine.let_all()
        collect(call)
        after = read_metrics(running)

    assert (during["labelmint_active_streams", "tiny"], during["labelmint_queued_rows", "tiny"]) == (1, 5)
    assert (after["labelmint_active_streams", "tiny"], after["labelmint_queued_rows", "tiny"]) == (0, 0)


def test_metrics_name_what_is_served(fresh: Serving) -> None:
    [model] = fresh.models
    labels = (model.bundle.digest, "onnxruntime", "tiny", model.numerics.id, "1")

    assert read_metrics(fresh)["labelmint_model_info", *labels] == 1


def test_metrics_end_with_the_server(bundles: dict[str, Path]) -> None:
    with serving([bundles["tiny"]]) as running:
        read_metrics(running)
    with pytest.raises(urllib.error.URLError):
        read_metrics(running)


def test_silent_connections_keep_nobody_from_the_metrics(fresh: Serving) -> None:
    """They are few at a time, each new one in the place of the oldest, and they do not stay for long."""
    host, port = fresh.readiness.metrics.removeprefix("http://").removesuffix("/metrics").rsplit(":", 1)
    before = psutil.Process().num_fds()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT_S)) for _ in range(300)]
        assert any(key[0] == "labelmint_model_info" for key in read_metrics(fresh))
        ours = psutil.Process().num_fds() - before
        assert ours <= len(silent) + METRICS_CONNECTIONS + 5
        for one in silent:  # all are told to go, those that are left after a silence
            assert one.recv(1) == b""


def test_server_without_metrics_tells_of_none(bundles: dict[str, Path]) -> None:
    with serving([bundles["tiny"]], metrics=False) as running:
        assert running.readiness.metrics == ""
        assert collect(running.stub().Generate(make_request(), timeout=TIMEOUT_S)).indices == [0, 1, 2, 3, 4]


def test_what_is_counted_of_a_model_is_there_before_its_first_stream(bundles: dict[str, Path]) -> None:
    with serving([bundles["tiny"]]) as running:
        metrics = read_metrics(running)

    names = ["samples_sent", "samples_scanned", "samples_rejected", "rows_dropped", "bytes_sent"]
    counted = {f"labelmint_{name}_total" for name in names}
    shown = {key[0] for key, value in metrics.items() if key[1:] == ("tiny",) and value == 0}
    assert counted | {"labelmint_active_streams", "labelmint_queued_rows", "labelmint_waiting_streams"} <= shown
    assert {key[1] for key in metrics if key[0] == "labelmint_engine_errors_total"} == {
        "run",
        "memory",
        "non_finite",
        "lost",
    }
    assert {key[1]: value for key, value in metrics.items() if key[0] == "labelmint_streams_refused_total"} == {
        "max_streams": 0,
        "max_waiting_streams": 0,
        "max_wait_s": 0,
        "deadline": 0,
        "client max_streams": 0,
        "client samples_per_day": 0,
    }
