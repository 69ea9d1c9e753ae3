"""What a server's metrics say."""

from __future__ import annotations

import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.service.calls import TIMEOUT_S
from tests.serving import Serving


def read_metrics(running: Serving) -> dict[tuple[str, ...], float]:
    """Values by name and values of the labels, these in the order of their names."""
    with urllib.request.urlopen(running.readiness.metrics, timeout=TIMEOUT_S) as response:
        text = response.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, *(one.labels[key] for key in sorted(one.labels))): one.value for one in samples}


def wait_for_metric(running: Serving, name: str, label: str, value: float) -> None:
    """Wait until a metric with one label has a value; whoever scrapes has nothing to wait on."""
    until_s = time.monotonic() + TIMEOUT_S
    while read_metrics(running).get((name, label)) != value:
        assert time.monotonic() < until_s, f"{name} is {read_metrics(running).get((name, label))}, expected {value}"
        time.sleep(0.005)
