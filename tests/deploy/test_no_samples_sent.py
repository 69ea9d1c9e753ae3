"""LabelmintNoSamplesSent tells apart an engine that hangs, readers that stop and callers that send nothing by metrics.

Each case is that of the alert on a real server: a stream in work, and none of its samples sent any more.
"""

import queue
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from labelmint.v1 import service_pb2, service_pb2_grpc
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, make_request
from tests.service.reading import read_metrics, wait_for_metric
from tests.service.scripted_engine import scripted_model
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

QUIET_S = 0.3
"""How long nothing may be sent until it counts as nothing any more; long beside a run of a tiny bundle."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def num_unfinished(running: Serving) -> float:
    """Batches that were begun and are neither done nor failed, as the alert's text has it."""
    metrics = read_metrics(running)
    begun = metrics.get(("labelmint_batch_fill_ratio_count", "tiny"), 0.0)
    done = metrics.get(("labelmint_stage_seconds_count", "tiny", "compute"), 0.0)
    failed = sum(metrics.get(("labelmint_engine_errors_total", kind, "tiny"), 0.0) for kind in ("run", "memory"))
    return begun - done - failed


def queued_rows(running: Serving) -> float:
    return read_metrics(running)["labelmint_queued_rows", "tiny"]


def wait_until_nothing_is_sent(running: Serving) -> None:
    """Wait until no row was sent for a while; whoever scrapes has nothing to wait on."""
    sent = -1.0
    while sent != (sent := read_metrics(running).get(("labelmint_samples_sent_total", "tiny"), 0.0)):
        time.sleep(QUIET_S)


def test_run_that_does_not_end_was_begun_and_is_not_done(tiny: Path) -> None:
    model, engine = scripted_model(tiny)
    with serving([model]) as running:
        engine.fails = lambda _: True
        with pytest.raises(grpc.RpcError):
            list(running.stub().Generate(make_request(), timeout=TIMEOUT_S))
        engine.fails = None
        engine.hold()
        engine.let(2)
        call = running.stub().Generate(make_request(max_accepted=None, endless=True), timeout=TIMEOUT_S)
        for _ in range(3):
            engine.wait_until_begun()
        wait_until_nothing_is_sent(running)

        assert num_unfinished(running) == 1
        assert queued_rows(running) > 0
        call.cancel()
        engine.let_all()


def test_readers_that_stop_leave_no_batch_undone_and_rows_queued(tiny: Path) -> None:
    request = make_request(max_accepted=None, endless=True, output={"fields": EVERY_FIELD})
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4096)]
    with (
        serving([tiny], stream_queue_batches=2) as running,
        grpc.insecure_channel(running.address, options=small_window) as channel,
    ):
        stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
        call = stub.Generate(request, timeout=TIMEOUT_S)
        next(call)
        wait_until_nothing_is_sent(running)

        assert num_unfinished(running) == 0
        assert queued_rows(running) > 0
        call.cancel()


def test_callers_that_send_no_latents_leave_no_batch_undone_and_no_rows_queued(tiny: Path) -> None:
    requests: queue.Queue[service_pb2.LabelRequest | None] = queue.Queue()

    def sent() -> Iterator[service_pb2.LabelRequest]:
        while (request := requests.get()) is not None:
            yield request

    with serving([tiny]) as running:
        requests.put(service_pb2.LabelRequest(options=service_pb2.LabelOptions(model="tiny")))
        call = running.stub().Label(sent(), timeout=TIMEOUT_S)
        wait_for_metric(running, "labelmint_active_streams", "tiny", 1.0)

        assert num_unfinished(running) == 0
        assert read_metrics(running).get(("labelmint_queued_rows", "tiny"), 0.0) == 0
        requests.put(None)
        call.cancel()
