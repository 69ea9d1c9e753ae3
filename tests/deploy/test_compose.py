"""The compose file: well formed, confined, and its parts point at each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("compose_spec", reason="compose-spec has no wheel for this platform")

import compose_spec

from labelmint_service.settings import load_settings

COMPOSE = Path(__file__).parent.parent.parent / "deploy" / "compose"
TEXT = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]  # Any: YAML
REPOSITORY_TEXT = (COMPOSE / "repository.yaml").read_text(encoding="utf-8")


def check(text: str) -> None:
    """Raises:
    ValueError: It is no compose file, or names a volume or network that it does not have.
    """
    compose_spec.PyOptions(apply_merge=True).from_yaml(text).validate()


@pytest.mark.parametrize("text", [TEXT, REPOSITORY_TEXT], ids=["compose", "repository"])
def test_file_fits_the_specification_of_compose(text: str) -> None:
    check(re.sub(r"\$\{LABELMINT_MODELS:\?[^}]+\}", "/srv/models", text))


@pytest.mark.parametrize("key", ["read_only", "healthcheck", "stop_grace_period", "depends_on", "condition"])
def test_specification_refuses_a_misspelt_key(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}x|condition"):
        check(TEXT.replace(f"{key}:", f"{key}x:"))


@pytest.mark.parametrize("name", SERVICES)
def test_container_is_confined_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_server_is_watched_by_its_own_command_and_stopped_before_it_is_ready_too() -> None:
    assert SERVICES["labelmint"]["healthcheck"]["test"] == ["CMD", "labelmint", "health"]
    assert SERVICES["labelmint"]["init"] is True


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"labelmint"}))
def test_image_of_others_is_named_by_digest(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+@sha256:[0-9a-f]{64}", SERVICES[name]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_are_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (COMPOSE / source).exists(), source


def test_repository_is_mounted_read_only_where_the_server_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    [(name, over)] = yaml.safe_load(REPOSITORY_TEXT)["services"].items()
    [volume] = over["volumes"]
    for variable, value in (SERVICES[name]["environment"] | over["environment"]).items():
        monkeypatch.setenv(variable, value)

    assert load_settings([]).model_repository == Path(volume["target"])
    assert volume["source"].startswith("${LABELMINT_MODELS:?")
    assert (volume["read_only"], volume["bind"]["create_host_path"]) == (True, False)


def inside(service: str, path: str) -> Path:
    """Where a file of a container lies here."""
    for volume in SERVICES[service]["volumes"]:
        source, target, *_ = volume.split(":")
        if path == target or path.startswith(f"{target}/"):
            return COMPOSE / f"{source}{path.removeprefix(target)}"
    raise AssertionError(f"{service} has no {path}")


def test_prometheus_reads_the_server_and_the_alerts() -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "labelmint"
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in SERVICES
    assert port == "9464"
    for file in config["rule_files"]:
        assert inside("prometheus", file).is_file()


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    sources = yaml.safe_load((COMPOSE / "grafana/datasources/prometheus.yaml").read_text(encoding="utf-8"))
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    providers = yaml.safe_load((COMPOSE / "grafana/dashboards/labelmint.yaml").read_text(encoding="utf-8"))
    folder = inside("grafana", providers["providers"][0]["options"]["path"])
    assert (folder / "labelmint.json").is_file()
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert inside("grafana", home).is_file()
