"""Which series the server exports, and which ones queries read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import promql_parser
from prometheus_client.metrics import MetricWrapperBase

from labelmint_service.metrics import ServiceMetrics

# What Prometheus and its operator add to every series.
TARGET_LABELS = frozenset({"job", "instance", "namespace", "pod"})
MAX_LABELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One series selector of a query."""

    name: str
    labels: frozenset[str]


def exported_series() -> dict[str, frozenset[str]]:
    """Each series that a server can export, with the labels that it has; `_created` times are left out."""
    metrics = ServiceMetrics()
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            touch(metric)
    return {
        sample.name: frozenset(sample.labels)
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def touch(metric: MetricWrapperBase) -> None:
    """Make a metric export something: it does so once its labels have values."""
    for number in range(1, MAX_LABELS):
        try:
            metric.labels(*["x"] * number)
        except ValueError:
            continue
        return
    raise AssertionError(f"{metric} takes no number of labels below {MAX_LABELS}")


def families(series: dict[str, frozenset[str]]) -> set[str]:
    """The metrics behind the series: a histogram counts once."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in series}


def selectors(expression: str) -> list[Selector]:
    """Parse a query, with or without Grafana's variables, and list what it reads."""
    text = expression.replace("$__rate_interval", "5m").replace("$__range", "1h")
    return list(_found(promql_parser.parse(text)))


def grouping_labels(expression: str) -> set[str]:
    """Labels by which a query aggregates."""
    return {
        label.strip()
        for group in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in group.split(",")
        if label.strip()
    }


def _found(expression: promql_parser.Expr) -> Iterator[Selector]:
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(expression, nodes.append)
    for node in nodes:
        if isinstance(node, promql_parser.VectorSelector):
            yield Selector(
                name=node.name or "",
                labels=frozenset(matcher.name for matcher in node.matchers.matchers),
            )
