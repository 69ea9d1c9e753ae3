"""The probes of the Helm chart, and the time that a pod gets to start and to stop."""

import math
from pathlib import Path

import pytest

pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this platform")

from labelmint_client import Tls
from labelmint_client._commands.arguments import parse_arguments
from tests.deploy.chart import FULL, NAME, QUOTAS, TLS, container, pod, render

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
PROCESS_S = 10
"""More than `labelmint health`, 0.6 s of a processor, took beside eight streams, their clients and others on two."""


def test_probes_ask_the_health_service_on_the_port_of_the_server() -> None:
    for values, port in (({}, 50051), ({"ports": {"grpc": 8500}}, 8500)):
        one = container(render(values))
        for probe in PROBES:
            assert one[probe]["grpc"] == {"port": port}
        assert one["ports"][0] == {"name": "grpc", "containerPort": port}


@pytest.mark.parametrize("model", ["cars", "cars@2024-11"])
def test_readiness_alone_asks_for_a_model(model: str) -> None:
    one = container(render({"probes": {"readinessModel": model}}))
    asked = {probe: one[probe]["grpc"].get("service", "") for probe in PROBES}
    assert asked == {"startupProbe": "", "readinessProbe": model, "livenessProbe": ""}


def test_readiness_asks_for_a_model_over_tls_too() -> None:
    one = container(render({**QUOTAS, "probes": {**QUOTAS["probes"], "readinessModel": "cars@2"}}))
    asked = {probe: parse_arguments(one[probe]["exec"]["command"][1:]).model for probe in PROBES}
    assert asked == {"startupProbe": "", "readinessProbe": "cars@2", "livenessProbe": ""}


def test_rollout_has_not_failed_while_the_startup_probe_waits() -> None:
    def deadline_s(startup: dict[str, int]) -> int:
        values = {"probes": {"startup": startup}}
        return int(render(values)[f"Deployment/{NAME}"]["spec"]["progressDeadlineSeconds"])

    assert deadline_s({}) == 5 * 60 + 300
    assert deadline_s({"initialDelaySeconds": 20, "periodSeconds": 10, "failureThreshold": 200}) == 20 + 10 * 200 + 300


def test_a_command_takes_the_place_of_the_grpc_probes() -> None:
    probe = container(render(FULL))["livenessProbe"]
    assert probe["exec"]["command"] == FULL["probes"]["command"]
    assert "grpc" not in probe


def test_server_with_tls_is_probed_by_a_command_that_checks_it() -> None:
    tls = {name: FULL["probes"]["tls"][name] for name in ("rootCa", "serverName", "certificate", "key")}
    settings = {**TLS, "tls_client_ca": "/tls/ca.crt"}
    one = container(render({"settings": settings, "probes": {"tls": tls}, "ports": {"grpc": 8500}}))
    for probe in PROBES:
        program, *arguments = one[probe]["exec"]["command"]
        assert program == "labelmint"
        assert "grpc" not in one[probe]
        parsed = parse_arguments(arguments)
        assert (parsed.command, parsed.address) == ("health", "127.0.0.1:8500")
        assert parsed.security.tls == Tls(
            root_ca=Path(tls["rootCa"]),
            certificate=Path(tls["certificate"]),
            key=Path(tls["key"]),
            server_name=tls["serverName"],
        )


@pytest.mark.parametrize("probe", PROBES)
def test_probe_by_command_gets_the_time_that_a_process_takes_where_engines_use_all_processors(probe: str) -> None:
    assert container(render(QUOTAS))[probe]["timeoutSeconds"] >= PROCESS_S


@pytest.mark.parametrize("grace_s", [0, 20, 42.5, 3600])
def test_pod_gets_time_for_hook_and_streams(grace_s: float) -> None:
    spec = pod(render({"settings": {"grace_s": grace_s}, "preStopSleepSeconds": 7}))["spec"]
    assert spec["terminationGracePeriodSeconds"] == 7 + math.ceil(grace_s) + 10
