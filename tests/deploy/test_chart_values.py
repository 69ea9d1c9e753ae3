"""The values of the Helm chart: how they reach the server, and which ones are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this platform")

import helm_python

from deploy.helm.settings_schema import SCHEMA_FILE, SET_BY_THE_CHART, schema_with_settings
from labelmint_service.settings import ENV_PREFIX, ServiceSettings, load_settings
from tests.deploy.chart import (
    CASES,
    DEFAULTS,
    FULL,
    NAME,
    NAMESPACE,
    REPOSITORY,
    ROOT,
    Object,
    container,
    notes,
    pod,
    render,
)

TLS = {"tls_certificate": "/tls/tls.crt", "tls_key": "/tls/tls.key"}


@pytest.mark.parametrize("case", CASES)
def test_server_starts_from_file_and_variables_with_the_values(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = render(CASES[case])
    (tmp_path / "serve.json").write_text(objects[f"ConfigMap/{NAME}"]["data"]["serve.json"])
    variables = {one["name"]: one["value"] for one in container(objects)["env"]}
    assert variables.pop("LABELMINT_SERVE_CONFIG") == "/etc/labelmint/serve.json"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(["--config", str(tmp_path / "serve.json")])
    wanted = {**DEFAULTS["settings"], **CASES[case].get("settings", {})}
    assert {name: getattr(settings, name) for name in wanted} == wanted
    assert (settings.host, settings.metrics_host) == ("0.0.0.0", "0.0.0.0")
    folders = CASES[case].get("bundles", {}).get("folders")
    if folders:
        assert settings.bundle == tuple(Path("/bundles", folder) for folder in folders)
    folder = CASES[case].get("repository", {}).get("folder")
    assert settings.model_repository == (Path("/models", folder) if folder else None)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_no_variable_of_the_image_hides_what_the_file_says(target: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (stage,) = (text for text in re.split(r"^FROM ", dockerfile, flags=re.MULTILINE) if f" AS {target}\n" in text)
    set_by_image = set(re.findall(rf"\b({ENV_PREFIX}\w+)=", stage))
    assert set_by_image
    set_by_chart = {one["name"] for one in container(render({"gpu": {"enabled": target == "gpu"}}))["env"]}
    assert set_by_image <= set_by_chart


def test_new_settings_make_new_pods() -> None:
    def checksum(values: Object) -> str:
        return str(pod(render(values))["metadata"]["annotations"]["checksum/settings"])

    assert checksum({}) == checksum({})
    assert checksum({}) != checksum({"settings": {"max_streams": 7}})


def test_schema_knows_every_setting_that_the_chart_does_not_set_itself() -> None:
    text = SCHEMA_FILE.read_text(encoding="utf-8")
    assert text == schema_with_settings(text), "run `make chart-schema`"
    assert set(ServiceSettings.model_fields) >= SET_BY_THE_CHART


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"replicas": "three"},
        {"settings": {"max_stream": 7}},
        {"settings": {"max_streams": 0}},
        {"settings": {"engine": "tensorflow"}},
        {"settings": {"port": 1234}},
        {"image": {"digest": "latest"}},
        {"gpu": {"enable": True}},
        {"settings": {"model_repository": "/models"}},
        {"bundles": {"folders": ["../secrets"]}},
        {"repository": {"folder": "../secrets"}},
        {"repository": {"volume": {"emptyDir": {}, "hostPath": {"path": "/"}}}},
        {"repository": {"claim": "models"}},
        {"secrets": [{"name": "tls", "secret": "tls"}]},
        {"ports": {"grpc": 443}},
        {"autoscaling": {"targets": {"labelmint_waiting_streams": 0}}},
        {"networkPolicy": {"client": []}},
        {"probes": {"readiness": {"periodSecond": 1}}},
        {"probes": {"tls": {"rootCa": "ca.crt"}}},
        {"env": [{"name": "OTEL SERVICE"}]},
    ],
    ids=json.dumps,
)
def test_schema_refuses(values: Object) -> None:
    with pytest.raises(helm_python.HelmValuesError):
        render(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bundles": {"folders": ["cars"]}}, "bundles.volume is empty"),
        ({"bundles": {"volume": {"emptyDir": {}}}}, "bundles.folders is empty"),
        ({"repository": {"folder": "live"}}, "repository.volume is empty"),
        (
            {"repository": {"volume": {"emptyDir": {}}}, "bundles": {"folders": ["a"], "volume": {"emptyDir": {}}}},
            "a server has one or the other",
        ),
        ({"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}}, "metrics.enabled is false"),
        ({"metrics": {"enabled": False}, "autoscaling": {"enabled": True}}, "metrics.enabled is false"),
        ({"settings": {"tracing": True}}, "networkPolicy.egress is empty"),
        ({"settings": TLS}, "probes.tls.rootCa is empty"),
        (
            {"settings": {**TLS, "tls_client_ca": "/tls/clients.pem"}, "probes": {"tls": {"rootCa": "/tls/ca.crt"}}},
            "probes.tls.certificate or probes.tls.key is empty",
        ),
        (
            {
                "autoscaling": {
                    "enabled": True,
                    "targets": {"labelmint_waiting_streams": None, "labelmint_active_streams": None},
                }
            },
            "autoscaling.targets is empty",
        ),
    ],
    ids=[
        "no volume",
        "no folders",
        "no repository",
        "both",
        "monitor",
        "autoscaler",
        "tracing",
        "tls",
        "client tls",
        "no targets",
    ],
)
def test_contradictions_are_named(values: Object, message: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=message):
        render(values)


ANY_KEYS = {"settings", "autoscaling.behavior", "bundles.volume", "repository.volume"}


def keys(values: Any, prefix: str = "") -> set[str]:  # Any: YAML
    return {f"{prefix}{name}" for name in values} | {
        nested
        for name, value in values.items()
        if isinstance(value, dict) and f"{prefix}{name}" not in ANY_KEYS
        for nested in keys(value, f"{prefix}{name}.")
    }


def test_full_values_say_everything_that_can_be_said() -> None:
    said = keys(FULL) | keys(REPOSITORY)
    # Recreate has no rolling update; tags and schema know no more keys than the defaults show.
    missing = {key for key in keys(DEFAULTS) - said if not key.startswith("strategy.rollingUpdate")}
    assert missing == set()


def test_notes_name_the_addresses() -> None:
    text = notes({"autoscaling": {"enabled": True}})
    assert f"dns:///{NAME}-headless.{NAMESPACE}:50051" in text
    assert "prometheus-adapter" in text
    assert "serving the embedded model." in text
    assert "serving what lies in its model repository." in notes(REPOSITORY)
