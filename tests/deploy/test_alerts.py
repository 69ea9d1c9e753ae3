"""When the alerts fire, played through by Prometheus' own tool."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
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
    done = promtool("check", "config", "--syntax-only", str(HERE.parent.parent / "deploy/compose/prometheus.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
