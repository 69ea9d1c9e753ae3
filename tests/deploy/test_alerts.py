"""When the alerts fire, and what other queries come to, played through by Prometheus' own tool."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
DEPLOY = HERE.parent.parent / "deploy"
PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt install prometheus)")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    command = [PROMTOOL, *arguments]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120, check=False)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_of_the_compose_file() -> None:
    done = promtool("check", "config", "--syntax-only", str(DEPLOY / "compose/prometheus.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


# --- queries of others ------------------------------------------------------------------------------------------------


def play(folder: Path, series: dict[str, str], asked: dict[str, list[dict[str, object]]]) -> None:
    """Hold what queries come to after an hour, of series that begin with it and have a value a minute."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": query, "eval_time": "1h", "exp_samples": samples} for query, samples in asked.items()
        ],
    }
    file = folder / "played.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}), encoding="utf-8")
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_autoscaler_takes_a_server_that_has_had_no_stream_for_an_idle_one(tmp_path: Path) -> None:
    adapter = yaml.safe_load((DEPLOY / "helm/prometheus-adapter.yaml").read_text(encoding="utf-8"))
    filled = {"<<.GroupBy>>": "pod", "<<.LabelMatchers>>": 'namespace="gan",pod=~"new|old|without-model"'}
    asked = {}
    for rule in adapter["rules"]["custom"]:
        query = rule["metricsQuery"]
        for name, value in filled.items():
            query = query.replace(name, value)
        expected = {"old": 3, "new": 0, "without-model": 0}
        asked[query] = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in expected.items()]
    series = {
        'labelmint_active_streams{namespace="gan",pod="old",model="cars"}': "1x70",
        'labelmint_active_streams{namespace="gan",pod="old",model="cats"}': "2x70",
        'labelmint_waiting_streams{namespace="gan",pod="old",model="cars"}': "1x70",
        'labelmint_waiting_streams{namespace="gan",pod="old",model="cats"}': "2x70",
        'labelmint_waiting_streams{namespace="gan",pod="new",model="cars"}': "0x70",
    }
    for pod in ("old", "new", "without-model"):
        for outcome in ("ok", "error"):
            labels = f'namespace="gan",pod="{pod}",files="tls",outcome="{outcome}"'
            series[f"labelmint_reloads_total{{{labels}}}"] = "0x70"
    play(tmp_path, series, asked)


def test_dashboard_counts_events_before_the_second_scrape_of_their_counter(tmp_path: Path) -> None:
    target = 'job="labelmint",instance="a"'
    counted = {
        "Refused calls": ("labelmint_requests_total", 'rpc="Generate",code="RESOURCE_EXHAUSTED"', ""),
        "Streams refused, by limit": (
            "labelmint_streams_refused_total",
            'model="cars",limit="max_streams"',
            'model="cars",limit="max_streams"',
        ),
        "Loads of versions": (
            "labelmint_model_loads_total",
            'model="cars",outcome="error"',
            'instance="a",model="cars",outcome="error"',
        ),
    }
    panels = {one["title"]: one for one in json.loads((DEPLOY / "grafana/labelmint.json").read_text())["panels"]}
    series, asked = {}, {}
    for title, (metric, labels, kept) in counted.items():
        [query] = [one["expr"] for one in panels[title]["targets"]]
        for name, value in {"$__range": "30m", '"$job"': '"labelmint"', "$instance": ".*", "$model": ".*"}.items():
            query = query.replace(name, value)
        series[f"{metric}{{{target},{labels}}}"] = "_x40 30x30"
        asked[query] = [{"labels": f"{{{kept}}}", "value": 30}]
    play(tmp_path, series, asked)
