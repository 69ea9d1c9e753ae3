"""`--profile`: where the time went."""

from __future__ import annotations

import signal
from pathlib import Path

from labelmint.v1 import service_pb2
from labelmint_service.metrics import ServiceMetrics
from labelmint_service.profile import draw_profile
from tests.service.server_process import server_process


def test_server_that_stops_says_where_the_time_went(bundles: dict[str, Path], tmp_path: Path) -> None:
    with server_process(tmp_path, "--bundle", str(bundles["tiny"]), "--profile") as running:
        request = service_pb2.GenerateRequest(model="tiny", seed=1, max_accepted=20)
        assert sum(len(batch.indices) for batch in running.stub().Generate(request)) == 20
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        text = running.log.read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines() if line.startswith("tiny ")]
    assert [row[1] for row in rows] == ["latents", "queue", "compute", "encode", "send"]
    for _, stage, count, total_s, mean_ms in rows:
        assert int(count) >= 5, stage
        assert abs(float(total_s) * 1e3 - float(mean_ms) * int(count)) < 1.0


def test_stages_come_in_the_order_of_the_work_and_those_of_other_engines_last() -> None:
    metrics = ServiceMetrics()
    for model, stage, seconds in (
        ("b", "send", 1.0),
        ("a", "new", 2.0),
        ("a", "synthesis", 0.5),
        ("a", "compute", 0.25),
    ):
        metrics.stage_seconds.labels(model, stage).observe(seconds)
    metrics.stage_seconds.labels("a", "compute").observe(0.75)
    head, *lines = draw_profile(metrics).splitlines()
    assert head.split() == ["model", "stage", "times", "total", "s", "mean", "ms"]
    assert [line.split() for line in lines] == [
        ["a", "compute", "2", "1.000", "500.000"],
        ["a", "synthesis", "1", "0.500", "500.000"],
        ["a", "new", "1", "2.000", "2000.000"],
        ["b", "send", "1", "1.000", "1000.000"],
    ]
