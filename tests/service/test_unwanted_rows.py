"""Rows that wait for the engine while their caller leaves or is late: dropped, counted, and never computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmint.addresses import latents
from tests.service.calls import TIMEOUT_S, collect, expect_failure, make_request
from tests.service.reading import wait_for_metric
from tests.service.scripted_engine import scripted_model
from tests.serving import serving

DEADLINE_S = 1.0
FIRST, LEFT, LATE, NEXT = range(4)
"""Seeds of the streams."""


def z_of(seed: int, count: int) -> npt.NDArray[np.float32]:
    return latents(seed, np.arange(count, dtype=np.uint64), 8)


def test_rows_of_callers_that_leave_or_are_late_are_dropped_before_compute(bundles: dict[str, Path]) -> None:
    model, engine = scripted_model(bundles["tiny"])
    engine.hold()
    with serving([model]) as running:
        stub = running.stub()
        first = stub.Generate(make_request(seed=FIRST, max_accepted=4), timeout=TIMEOUT_S)
        engine.wait_until_begun()
        left = stub.Generate(make_request(seed=LEFT, max_accepted=1), timeout=TIMEOUT_S)
        late = stub.Generate(make_request(seed=LATE, max_accepted=3), timeout=DEADLINE_S)
        wait_for_metric(running, "labelmint_queued_rows", "tiny", 8)  # a batch that runs, and one that waits
        left.cancel()
        wait_for_metric(running, "labelmint_rows_dropped_total", "tiny", 1)
        failure = expect_failure(late)
        wait_for_metric(running, "labelmint_rows_dropped_total", "tiny", 4)
        wait_for_metric(running, "labelmint_queued_rows", "tiny", 4)
        engine.let_all()
        collected = collect(first)
        following = collect(stub.Generate(make_request(seed=NEXT, max_accepted=4), timeout=TIMEOUT_S))

    assert failure.code == "DEADLINE_EXCEEDED"
    assert [collected.indices, following.indices] == [[0, 1, 2, 3]] * 2
    np.testing.assert_array_equal(np.concatenate(engine.runs), np.concatenate([z_of(FIRST, 4), z_of(NEXT, 4)]))
