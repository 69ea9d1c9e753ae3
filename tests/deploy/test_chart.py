"""The Helm chart: the objects that it makes of values."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this platform")

import helm_python
import kubernetes_validate

from labelmint_service.settings import ServiceSettings
from tests.deploy.chart import (
    CASES,
    CHART,
    CLAIM,
    DEFAULTS,
    FULL,
    GPU,
    NAME,
    QUOTAS,
    REPOSITORY,
    ROOT,
    Object,
    container,
    pod,
    render,
    settings_of,
)

# The oldest Kubernetes that the chart takes, and the newest whose schemas are at hand.
KUBERNETES = ["1.30", "1.37"]
OPERATOR_KINDS = {"ServiceMonitor", "PrometheusRule"}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_objects_fit_the_schemas_of_kubernetes(case: str, version: str) -> None:
    objects = render(CASES[case])
    for name, one in objects.items():
        if one["kind"] not in OPERATOR_KINDS:
            try:
                used = kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{name}: {error.message} at {list(error.path)}")
            assert used.startswith(version)


def test_schemas_of_kubernetes_refuse_what_is_misspelt() -> None:
    objects = render({})
    container(objects)["readinesProbe"] = container(objects).pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(objects[f"Deployment/{NAME}"], KUBERNETES[0], strict=True)


@pytest.mark.parametrize("case", CASES)
def test_helm_has_nothing_to_warn_about(case: str) -> None:
    report = helm_python.lint(CHART, CASES[case], strict=True)
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [one for one in report["messages"] if one["severity"] > 1] == []


def test_chart_makes_these_objects() -> None:
    always = {
        f"Deployment/{NAME}",
        f"NetworkPolicy/{NAME}",
        f"PodDisruptionBudget/{NAME}",
        f"Service/{NAME}",
        f"Service/{NAME}-headless",
        f"Service/{NAME}-metrics",
        f"ServiceAccount/{NAME}",
    }
    assert set(render({})) == always
    more = {f"HorizontalPodAutoscaler/{NAME}", f"ServiceMonitor/{NAME}", f"PrometheusRule/{NAME}"}
    assert set(render(FULL)) == (always | more | {"ServiceAccount/streams"}) - {f"ServiceAccount/{NAME}"}
    assert set(render(QUOTAS)) == always | {f"PersistentVolumeClaim/{NAME}-quotas"}
    assert set(render(CLAIM)) == always


def test_names_of_objects_may_be_names_of_services() -> None:
    long = "a-very-long-name.of-a-release-with.dots-in-it"
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render({}, name=long, namespace="gan")
    services = [one for one in yaml.safe_load_all(files["labelmint/templates/services.yaml"]) if one]
    assert len(services) == 3
    for service in services:
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", service["metadata"]["name"])


# --- pod --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_pod_has_no_rights(case: str) -> None:
    objects = render(CASES[case])
    spec = pod(objects)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["name"] for mount in container(objects)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == ({"quotas"} if CASES[case].get("quotas") else set())
    account = objects[f"ServiceAccount/{spec['serviceAccountName']}"]
    assert account["automountServiceAccountToken"] is False


def test_pod_runs_as_the_user_of_the_image() -> None:
    (user,) = set(re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    assert pod(render({}))["spec"]["securityContext"]["runAsUser"] == int(user)


def test_variables_of_the_values_reach_the_container() -> None:
    assert FULL["env"][0] in container(render(FULL))["env"]


def test_gpu_values_ask_for_a_gpu_and_set_the_provider() -> None:
    objects = render(GPU)
    one = container(objects)
    assert one["image"].endswith("-gpu")
    assert one["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert one["resources"]["limits"]["memory"] == DEFAULTS["resources"]["limits"]["memory"]
    assert pod(objects)["spec"]["tolerations"] == DEFAULTS["gpu"]["tolerations"]
    assert pod(objects)["spec"]["runtimeClassName"] == "nvidia"
    assert settings_of(objects)["provider"] == "cuda"


@pytest.mark.parametrize(
    ("count", "settings", "devices"),
    [
        (1, {}, ()),
        (3, {}, (0, 1, 2)),
        (3, {"devices": [2, 0]}, (2, 0)),
        (3, {"devices": []}, ()),
        (3, {"provider": "cpu"}, ()),
    ],
    ids=["one", "three", "chosen", "first", "processor"],
)
def test_server_runs_on_all_its_gpus_unless_told_otherwise(
    count: int, settings: dict[str, object], devices: tuple[int, ...]
) -> None:
    objects = render({"gpu": {"enabled": True, "count": count}, "settings": settings})
    assert container(objects)["resources"]["limits"]["nvidia.com/gpu"] == count
    assert ServiceSettings.model_validate(settings_of(objects)).devices == devices


def test_without_gpu_nothing_of_one_is_asked_for() -> None:
    objects = render({})
    assert container(objects)["image"].endswith("-cpu")
    assert "nvidia" not in json.dumps(objects)
    assert settings_of(objects)["provider"] == "cpu"


def test_digest_goes_before_tag() -> None:
    image = FULL["image"]
    assert container(render(FULL))["image"] == f"{image['repository']}@{image['digest']}"


def test_application_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == project["version"]
    assert container(render({}))["image"] == f"labelmint:{project['version']}-cpu"


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_bundles_and_secrets_are_mounted_where_settings_look_for_them() -> None:
    objects = render(FULL)
    volumes = {volume["name"]: volume for volume in pod(objects)["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert set(volumes) == set(mounts)
    assert mounts["bundles"] == "/bundles"
    assert volumes["bundles"]["persistentVolumeClaim"]["claimName"] == "bundles"
    assert mounts["secret-tls"] == "/etc/labelmint/tls"
    assert volumes["secret-tls"]["secret"]["secretName"] == "labelmint-tls"


@pytest.mark.parametrize("folder", ["", "gans/live"])
def test_model_repository_is_mounted_where_the_server_looks_for_it(folder: str) -> None:
    volume = {"nfs": {"server": "files.example.org", "path": "/models"}}
    objects = render({"repository": {"volume": volume, "folder": folder}})
    volumes = {one["name"]: one for one in pod(objects)["spec"]["volumes"]}
    mounts = {one["name"]: one for one in container(objects)["volumeMounts"]}
    assert volumes["models"] == {"name": "models", **volume}
    assert mounts["models"]["readOnly"] is True
    assert settings_of(objects)["model_repository"] == "/".join([mounts["models"]["mountPath"], folder]).rstrip("/")
    assert "bundle" not in settings_of(objects)


@pytest.mark.parametrize(("values", "claim"), [(QUOTAS, f"{NAME}-quotas"), (CLAIM, "counts")], ids=["own", "existing"])
def test_counts_of_quotas_are_written_to_a_claim_that_outlives_the_pod(values: Object, claim: str) -> None:
    objects = render(values)
    volumes = {one["name"]: one for one in pod(objects)["spec"]["volumes"]}
    mounts = {one["name"]: one for one in container(objects)["volumeMounts"]}
    assert volumes["quotas"]["persistentVolumeClaim"] == {"claimName": claim}
    assert "readOnly" not in mounts["quotas"]
    assert str(Path(settings_of(objects)["quota_file"]).parent) == mounts["quotas"]["mountPath"]
    assert ServiceSettings.model_validate(settings_of(objects)).quota_file is not None


def test_claim_of_quotas_is_as_large_and_of_the_class_that_the_values_say() -> None:
    spec = render(QUOTAS)[f"PersistentVolumeClaim/{NAME}-quotas"]["spec"]
    assert spec == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    default = render({**QUOTAS, "quotas": {"enabled": True}})[f"PersistentVolumeClaim/{NAME}-quotas"]["spec"]
    assert "storageClassName" not in default


def test_at_most_one_server_has_the_counts_of_quotas() -> None:
    spec = render(QUOTAS)[f"Deployment/{NAME}"]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_without_quotas_there_is_nothing_to_write_to() -> None:
    objects = render({})
    assert "quota_file" not in settings_of(objects)
    assert "quotas" not in {one["name"] for one in pod(objects)["spec"]["volumes"]}


def test_without_a_repository_there_is_neither_its_volume_nor_an_admin_service() -> None:
    objects = render({})
    assert {"model_repository", "admin_port"}.isdisjoint(settings_of(objects))
    assert "models" not in {one["name"] for one in pod(objects)["spec"]["volumes"]}


def test_admin_service_of_a_repository_is_reached_from_inside_the_pod_alone() -> None:
    objects = render(REPOSITORY)
    settings = ServiceSettings.model_validate(settings_of(objects))
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.1", 50052)
    del pod(objects)["metadata"]["annotations"]
    assert "50052" not in json.dumps(objects)


# --- network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["", "RequireDualStack"])
def test_all_services_have_the_families_of_addresses_that_the_values_say(policy: str) -> None:
    services = [one for one in render({"service": {"ipFamilyPolicy": policy}}).values() if one["kind"] == "Service"]
    assert [one["spec"].get("ipFamilyPolicy", "") for one in services] == [policy] * 3


def test_metrics_can_be_scraped_from_pods_with_ipv6_addresses() -> None:
    objects = render({"metrics": {"host": "::"}})
    variables = {one["name"]: one.get("value") for one in container(objects)["env"]}
    assert settings_of(objects)["metrics_host"] == variables["LABELMINT_SERVE_METRICS_HOST"] == "::"
    assert settings_of(render({}))["metrics_host"] == "0.0.0.0"


def test_services_find_the_pods_and_their_ports() -> None:
    for values in (CASES["defaults"], FULL):
        objects = render(values)
        labels = pod(objects)["metadata"]["labels"]
        ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
        for suffix in ("", "-headless", "-metrics"):
            service = objects[f"Service/{NAME}{suffix}"]["spec"]
            assert service["selector"].items() <= labels.items()
            (port,) = service["ports"]
            assert port["port"] == ports[port["targetPort"]]
        assert objects[f"Service/{NAME}-headless"]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize(("values", "protocol"), [({}, "kubernetes.io/h2c"), (QUOTAS, "https")], ids=["plain", "tls"])
def test_services_say_whether_their_port_speaks_tls(values: Object, protocol: str) -> None:
    objects = render(values)
    for suffix in ("", "-headless"):
        [port] = objects[f"Service/{NAME}{suffix}"]["spec"]["ports"]
        assert port["appProtocol"] == protocol


def test_selectors_of_all_objects_choose_the_pods() -> None:
    objects = render(FULL)
    labels = pod(objects)["metadata"]["labels"]
    chosen = [
        objects[f"Deployment/{NAME}"]["spec"]["selector"],
        objects[f"PodDisruptionBudget/{NAME}"]["spec"]["selector"],
        objects[f"NetworkPolicy/{NAME}"]["spec"]["podSelector"],
    ]
    for selector in chosen:
        assert selector["matchLabels"]
        assert selector["matchLabels"].items() <= labels.items()


def test_monitor_finds_the_metrics_service_and_calls_the_job_labelmint() -> None:
    objects = render(FULL)
    monitor = objects[f"ServiceMonitor/{NAME}"]["spec"]
    found = [
        name
        for name, one in objects.items()
        if one["kind"] == "Service" and monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert found == [f"Service/{NAME}-metrics"]
    service = objects[found[0]]
    assert [one["port"] for one in monitor["endpoints"]] == [one["name"] for one in service["spec"]["ports"]]
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "labelmint"


def test_monitor_calls_a_server_by_the_name_of_its_pod() -> None:
    [endpoint] = render(FULL)[f"ServiceMonitor/{NAME}"]["spec"]["endpoints"]
    assert endpoint["relabelings"] == [{"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}]


def test_rules_reach_the_operator_as_they_are() -> None:
    alerts = yaml.safe_load((CHART / "alerts.yaml").read_text(encoding="utf-8"))
    assert render(FULL)[f"PrometheusRule/{NAME}"]["spec"] == alerts


def test_policy_lets_in_whom_the_values_name_and_nobody_else() -> None:
    policy = render(FULL)[f"NetworkPolicy/{NAME}"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [(rule["from"], rule["ports"][0]["port"]) for rule in policy["ingress"]] == [
        (FULL["networkPolicy"]["clients"], 8500),
        (FULL["networkPolicy"]["scrapers"], 9000),
    ]
    assert policy["egress"] == FULL["networkPolicy"]["egress"]


def test_policy_with_empty_lists_lets_nobody_in() -> None:
    policy = render({"networkPolicy": {"clients": [], "scrapers": []}})[f"NetworkPolicy/{NAME}"]["spec"]
    assert policy["ingress"] == []
    assert policy["egress"] == []


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_autoscaler_follows_its_targets_and_replaces_the_fixed_number() -> None:
    objects = render({"autoscaling": {"enabled": True}})
    scaler = objects[f"HorizontalPodAutoscaler/{NAME}"]["spec"]
    asked = {one["pods"]["metric"]["name"]: one["pods"]["target"]["averageValue"] for one in scaler["metrics"]}
    assert asked == {name: str(average) for name, average in DEFAULTS["autoscaling"]["targets"].items()}
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert "replicas" not in objects[f"Deployment/{NAME}"]["spec"]
    assert render({})[f"Deployment/{NAME}"]["spec"]["replicas"] == DEFAULTS["replicas"]


def test_a_target_of_null_is_dropped() -> None:
    scaler = render(FULL)[f"HorizontalPodAutoscaler/{NAME}"]["spec"]
    assert [one["pods"]["metric"]["name"] for one in scaler["metrics"]] == ["labelmint_waiting_streams"]
