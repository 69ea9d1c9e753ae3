"""Dashboard, alerts and autoscaling read what the server exports, and the dashboard leaves nothing of it out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("promql_parser", reason="promql-parser has no wheel for this platform")

from labelmint_service.metrics import ServiceMetrics
from tests.deploy.metrics import TARGET_LABELS, exported_series, families, grouping_labels, selectors
from tests.deploy.sources import logged_events

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/labelmint.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "helm/labelmint/alerts.yaml").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((DEPLOY / "helm/labelmint/values.yaml").read_text(encoding="utf-8"))
ADAPTER = yaml.safe_load((DEPLOY / "helm/prometheus-adapter.yaml").read_text(encoding="utf-8"))

EXPORTED = exported_series()


def panel_queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']} {target['refId']}", target["expr"]


def variable_queries() -> Iterator[tuple[str, str]]:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found is not None, variable["query"]
            yield f"variable {variable['name']}", f"sum by ({found[2]}) ({found[1]})"


def alert_queries() -> Iterator[tuple[str, str]]:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


QUERIES = dict([*panel_queries(), *variable_queries(), *alert_queries()])


@pytest.mark.parametrize("query", QUERIES)
def test_query_reads_series_and_labels_that_the_server_exports(query: str) -> None:
    read = selectors(QUERIES[query])
    assert read, "it reads nothing"
    for selector in read:
        if selector.name == "up":
            assert selector.labels <= TARGET_LABELS
        else:
            assert selector.name in EXPORTED
            assert selector.labels | grouping_labels(QUERIES[query]) <= EXPORTED[selector.name] | TARGET_LABELS


def test_dashboard_shows_every_metric_of_the_server() -> None:
    shown = {selector.name for _, query in panel_queries() for selector in selectors(query)}
    assert families(dict.fromkeys(shown, frozenset())) == families(EXPORTED)


@pytest.mark.parametrize("metric", VALUES["autoscaling"]["targets"])
def test_autoscaler_reads_metrics_of_the_server_that_the_adapter_passes_on(metric: str) -> None:
    assert metric in EXPORTED
    [rule] = [one for one in ADAPTER["rules"]["custom"] if one["name"]["as"] == metric]
    [found] = selectors(rule["seriesQuery"])
    assert found.name in {sample.name for family in ServiceMetrics().registry.collect() for sample in family.samples}
    assert found.labels == {"namespace", "pod"}
    assert metric in rule["metricsQuery"]


def test_panels_count_the_first_event_of_a_counter_that_appears_with_it() -> None:
    """increase() does not: with it alone, 30 refused calls between two scrapes are none."""
    blind = [
        name
        for name, query in panel_queries()
        if "increase(" in query and "labelmint_reloads_total" not in query and " offset $__range" not in query
    ]
    assert blind == []


def test_memory_in_use_is_not_stacked_upon_all_there_is() -> None:
    [panel] = [one for one in DASHBOARD["panels"] if one["title"] == "Memory of the GPU"]
    assert panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "none"


def annotated_labels(rule: dict[str, Any]) -> set[str]:  # Any: YAML
    return set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))


@pytest.mark.parametrize("rule", ALERTS["groups"][0]["rules"], ids=lambda rule: str(rule["alert"]))
def test_alert_says_where_it_happens_and_names_labels_that_it_has(rule: dict[str, Any]) -> None:
    assert "instance" in annotated_labels(rule)
    kept = grouping_labels(rule["expr"]) or TARGET_LABELS
    assert annotated_labels(rule) <= kept
    assert {"namespace", "pod"} <= kept, "Alertmanager's routes choose by namespace, and an operator looks for the pod"
    assert rule["labels"]["severity"] in {"warning", "critical"}


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


def test_every_panel_asks_the_chosen_data_source_and_says_what_it_means() -> None:
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"].endswith(".")


def test_every_variable_of_a_query_is_one_of_the_dashboard() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert {name for name in used if not name.startswith("__")} <= variables


def test_only_servers_are_chosen_from() -> None:
    """Other programs have processes too, under the same names."""
    [job] = [variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "job"]
    assert "allValue" not in job  # so "All" is the list, and no pattern
    assert re.fullmatch(r"label_values\(labelmint_\w+, job\)", job["query"]["query"])
    assert [
        (name, selector.name)
        for name, query in QUERIES.items()
        for selector in selectors(query)
        if not selector.name.startswith("labelmint_") and "job" not in selector.labels
    ] == []


def test_every_alert_leads_to_a_cause_and_a_remedy() -> None:
    table = (DEPLOY / "README.md").read_text(encoding="utf-8").partition("| symptom |")[2].partition("\n\n")[0]
    alerts = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
    assert [alert for alert in alerts if alert not in table] == []


def test_every_metric_is_named_to_operators() -> None:
    table = (ROOT / "service/README.md").read_text(encoding="utf-8").partition("| metric |")[2].partition("\n\n")[0]
    assert {name for name in families(EXPORTED) if f"`{name}`" not in table} == set()


def test_every_event_of_the_log_is_named_to_operators() -> None:
    readme = (ROOT / "service/README.md").read_text(encoding="utf-8")
    assert {event for event in logged_events() if f"`{event}`" not in readme} == set()
