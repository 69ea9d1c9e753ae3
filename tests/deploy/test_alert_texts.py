"""What alerts, dashboard and runbook tell an operator to look at is there, and they mean the same by it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("promql_parser", reason="promql-parser has no wheel for this platform")

import promql_parser

from tests.deploy.metrics import TARGET_LABELS, Selector, exported_series, families, selectors
from tests.deploy.sources import engine_error_kinds, logged_events

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DEPLOY = ROOT / "deploy"
RULES: dict[str, dict[str, Any]] = {  # Any: YAML
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "helm/labelmint/alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
PLAYED = yaml.safe_load((HERE / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
DASHBOARD = json.loads((DEPLOY / "grafana/labelmint.json").read_text(encoding="utf-8"))
RUNBOOK = (DEPLOY / "README.md").read_text(encoding="utf-8").partition("## Finding out what is wrong")[2]

EXPORTED = exported_series()
EVENTS = logged_events()
KINDS = engine_error_kinds()
TEXTS = {
    **{f"alert {name}": " ".join(rule["annotations"].values()) for name, rule in RULES.items()},
    **{f"panel {one['title']}": one["description"] for one in DASHBOARD["panels"] if one["type"] != "row"},
    "runbook": RUNBOOK,
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_names_metrics_that_the_server_exports_and_events_that_it_logs(name: str) -> None:
    metrics = set(re.findall(r"\b(?:labelmint|process)_[a-z_]+", TEXTS[name]))
    areas = "|".join(sorted({event.partition(".")[0] for event in EVENTS}))
    events = {found[0] for found in re.finditer(rf"(?<![\w./])(?:{areas})\.[a-z_]+\b(?!\()", TEXTS[name])}
    assert metrics <= set(EXPORTED) | families(EXPORTED)
    assert {event for event in events if not event.endswith((".json", ".yaml"))} <= EVENTS


# --- errors of engines ------------------------------------------------------------------------------------------------


def kinds_of(rule: dict[str, Any]) -> set[str]:  # Any: YAML
    """The kinds of engine errors that a rule looks at."""
    found: set[str] = set()

    def look(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name == "labelmint_engine_errors_total":
            [matcher] = [one for one in node.matchers.matchers if one.name == "kind"]
            assert matcher.op == promql_parser.MatchOp.Equal
            found.add(matcher.value)

    promql_parser.walk(promql_parser.parse(rule["expr"]), look)
    return found


def test_each_kind_of_engine_error_that_can_be_scraped_has_one_alert_that_is_critical_where_runs_fail() -> None:
    severities = [(kind, rule["labels"]["severity"]) for rule in RULES.values() for kind in kinds_of(rule)]
    assert sorted(severities) == [("memory", "warning"), ("non_finite", "warning"), ("run", "critical")]
    assert KINDS - {kind for kind, _ in severities} == {"lost"}  # it ends the process, and the counter with it


def test_each_kind_of_engine_error_is_explained() -> None:
    [panel] = [one for one in DASHBOARD["panels"] if one["title"] == "Engine errors" and one["type"] == "timeseries"]
    assert {kind for kind in KINDS if not re.search(rf"\b{kind}\b", panel["description"])} == set()
    assert {kind for kind in KINDS if f"`{kind}`" not in RUNBOOK} == set()


# --- dashboard --------------------------------------------------------------------------------------------------------


def test_stages_to_choose_from_are_those_that_are_exported() -> None:
    [stage] = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "stage"]
    assert stage["type"] == "query"
    assert re.fullmatch(r"label_values\(labelmint_stage_seconds_count\{.+\}, stage\)", stage["query"]["query"])


# --- the tests of the alerts ------------------------------------------------------------------------------------------


def series_of(text: str) -> Selector:
    [selector] = selectors(text)
    return selector


def test_each_alert_is_played_through() -> None:
    asked = json.dumps([(test.get("promql_expr_test"), test.get("alert_rule_test")) for test in PLAYED])
    assert {name for name in RULES if name not in asked} == set()


@pytest.mark.parametrize("played", PLAYED, ids=lambda one: str(one["name"]))
def test_alerts_are_played_through_on_what_the_server_exports(played: dict[str, Any]) -> None:  # Any: YAML
    for one in played["input_series"]:
        selector = series_of(one["series"])
        if selector.name != "up":
            assert selector.labels <= EXPORTED[selector.name] | TARGET_LABELS
            assert selector.labels >= EXPORTED[selector.name]
    for one in played.get("promql_expr_test", []):
        promql_parser.parse(one["expr"])
    for one in played.get("alert_rule_test", []):
        assert one["alertname"] in RULES
