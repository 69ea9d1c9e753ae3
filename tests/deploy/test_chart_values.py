"""The values of the Helm chart: how they reach the server, and which ones are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this platform")

import helm_python
import yaml

from deploy.helm.settings_schema import SCHEMA_FILE, SET_BY_THE_CHART, WITHOUT_A_PLACE, schema_with_settings
from labelmint_service.settings import ENV_PREFIX, ServiceSettings, load_settings
from tests.deploy.chart import (
    CASES,
    CLAIM,
    DEFAULTS,
    FULL,
    NAME,
    NAMESPACE,
    QUOTAS,
    REPOSITORY,
    ROOT,
    TLS,
    Object,
    container,
    notes,
    pod,
    render,
    settings_of,
)


@pytest.mark.parametrize("case", CASES)
def test_server_starts_from_file_and_variables_with_the_values(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = render(CASES[case])
    (tmp_path / "serve.json").write_text(json.dumps(settings_of(objects)))
    variables = {one["name"]: one["value"] for one in container(objects)["env"]}
    del variables["LABELMINT_SERVE_CONFIG"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(["--config", str(tmp_path / "serve.json")])
    wanted = {**DEFAULTS["settings"], **CASES[case].get("settings", {})}
    got = {name: getattr(settings, name) for name in wanted}
    assert {name: str(value) if isinstance(value, Path) else value for name, value in got.items()} == wanted
    metrics = {**DEFAULTS["metrics"], **CASES[case].get("metrics", {})}
    assert (settings.host, settings.metrics_host) == ("0.0.0.0", metrics["host"])
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


def test_settings_are_part_of_the_pod_so_that_each_revision_of_the_deployment_keeps_its_own() -> None:
    objects = render({"settings": {"max_streams": 7}})
    [volume] = [one for one in pod(objects)["spec"]["volumes"] if one["name"] == "settings"]
    [mount] = [one for one in container(objects)["volumeMounts"] if one["name"] == "settings"]
    [config] = [one["value"] for one in container(objects)["env"] if one["name"] == "LABELMINT_SERVE_CONFIG"]
    [item] = volume["downwardAPI"]["items"]
    assert f"{mount['mountPath']}/{item['path']}" == config
    assert item["fieldRef"] == {"fieldPath": "metadata.annotations['labelmint/serve.json']"}
    assert settings_of(objects)["max_streams"] == 7
    assert pod(render({})) == pod(render({})) != pod(objects)


def test_secrets_may_lie_in_the_folder_of_the_configuration() -> None:
    secrets = [{"name": "all", "secret": "labelmint", "path": "/etc/labelmint"}]
    paths = [Path(one["mountPath"]) for one in container(render({"secrets": secrets}))["volumeMounts"]]
    assert [(path, other) for path in paths for other in paths if other in path.parents] == []


def test_schema_knows_every_setting_that_the_chart_does_not_set_itself() -> None:
    text = SCHEMA_FILE.read_text(encoding="utf-8")
    assert text == schema_with_settings(text), "run `make chart-schema`"
    assert set(ServiceSettings.model_fields) >= SET_BY_THE_CHART | WITHOUT_A_PLACE


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
        {"settings": {"quota_file": "/var/lib/labelmint/quotas"}},
        {"settings": {"ready_file": "/tmp/ready"}},
        {"quotas": {"enabled": True, "size": 64}},
        {"quotas": {"claim": "counts"}},
        {"fullnameOverride": "labels.example"},
        {"fullnameOverride": "1st"},
        {"ports": {"grpc": 443}},
        {"autoscaling": {"targets": {"labelmint_waiting_streams": 0}}},
        {"networkPolicy": {"client": []}},
        {"probes": {"readiness": {"periodSecond": 1}}},
        {"probes": {"tls": {"rootCa": "ca.crt"}}},
        {"probes": {"readinessModel": "Cars"}},
        {"probes": {"readinessModel": "cars@"}},
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
        ({"settings": {"tokens": "/clients.toml"}}, "tokens would cross the network in plain text"),
        ({**QUOTAS, "replicas": 2}, "set replicas to 1"),
        ({**QUOTAS, "autoscaling": {"enabled": True}}, "counts of quotas belong to one server"),
        ({**CLAIM, "strategy": {"type": "RollingUpdate"}}, "set strategy.type to Recreate"),
        ({**QUOTAS, "settings": TLS}, "no client has a quota"),
        ({"gpu": {"enabled": True, "count": 2, "resource": "nvidia.com/mig-1g.10gb"}}, "one MIG slice"),
        ({"probes": {"command": ["true"], "readinessModel": "cars"}}, "leave one of them out"),
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
        "tokens",
        "quotas of many",
        "quotas of more and more",
        "quotas of two at a time",
        "quotas of nobody",
        "slices",
        "two probes",
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
    said = keys(FULL) | keys(REPOSITORY) | keys(QUOTAS) | keys(CLAIM)
    # Recreate has no rolling update; tags and schema know no more keys than the defaults show.
    missing = {key for key in keys(DEFAULTS) - said if not key.startswith("strategy.rollingUpdate")}
    assert missing == set()


def test_values_of_the_readme_make_a_server_with_quotas() -> None:
    readme = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```yaml\n(.+?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    objects = render(yaml.safe_load(example))
    settings = ServiceSettings.model_validate(settings_of(objects))
    paths = [settings.tls_certificate, settings.tls_key, settings.tokens, settings.quota_file]
    folders = {Path(mount["mountPath"]) for mount in container(objects)["volumeMounts"]}
    assert all(path is not None and path.parent in folders for path in paths)


def test_notes_name_the_addresses() -> None:
    text = notes({"autoscaling": {"enabled": True}})
    assert f"dns:///{NAME}-headless.{NAMESPACE}:50051" in text
    assert "prometheus-adapter" in text
    assert "serving the embedded model." in text
    assert "serving what lies in its model repository." in notes(REPOSITORY)


def test_notes_say_who_may_scrape_where_prometheus_is_told_to() -> None:
    monitored: Object = {"metrics": {"serviceMonitor": {"enabled": True}}}
    assert "networkPolicy.scrapers" in notes(monitored)
    assert "networkPolicy.scrapers" not in notes({**monitored, "networkPolicy": {"enabled": False}})
    assert "networkPolicy.scrapers" not in notes({})


def test_notes_warn_of_servers_that_are_ready_without_a_model() -> None:
    warning = "probes.readinessModel"
    assert warning in notes({**REPOSITORY, "probes": {}})
    assert warning not in notes(REPOSITORY)
    assert warning not in notes({})


def test_notes_name_the_claim_of_quotas_and_what_a_client_has_to_show() -> None:
    assert f"lie on the claim {NAME}-quotas. It goes when the release does." in notes(QUOTAS)
    assert "lie on the claim counts.\n" in notes(CLAIM)
    assert "--tls-root-ca CA.PEM --tls-server-name NAME --token-file FILE\n" in notes(QUOTAS)
    assert "--tls" not in notes({})
