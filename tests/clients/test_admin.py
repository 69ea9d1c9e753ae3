"""The client of operators and `labelmint admin`, against a real server with a repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labelmint.bundle import open_bundle
from labelmint_client import (
    AccessError,
    AdminClient,
    Client,
    InvalidArgumentError,
    ModelChangedError,
    ModelNotFoundError,
    PreconditionError,
    ServerUnavailableError,
    UsageError,
)
from labelmint_client.cli import main
from tests.client_files import ClientFile
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for number in (1, 2):
        write_tiny_bundle(folder / "tiny" / str(number), seed=number)
    return folder


@pytest.fixture
def running(root: Path) -> Iterator[Serving]:
    with serving([], model_repository=root, repository_mode="explicit", load=("tiny@1",), admin_port=0) as server:
        yield server


@pytest.fixture
def admin(running: Serving) -> Iterator[AdminClient]:
    with AdminClient(running.readiness.admin) as client:
        yield client


@pytest.fixture
def command(running: Serving, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["admin", "--address", running.readiness.admin, *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_operator_swaps_versions_under_a_client(running: Serving, admin: AdminClient, root: Path) -> None:
    digests = {number: open_bundle(root / "tiny" / number).digest for number in ("1", "2")}
    with Client(running.address) as client:
        old = client.generate("tiny", seed=1, endless=True)
        first = next(old)
        loaded = admin.load("tiny@2")
        admin.set_alias("tiny", "stable", "1")
        summary = client.list_models()[0]
        models = [client.get_model(name) for name in ("tiny", "tiny@stable", "tiny@2")]
        rest = [next(old) for _ in range(20)]
        again = next(client.generate("tiny@1", seed=1, count=1))

    assert (loaded.version.state, loaded.num_replicas, loaded.in_folder) == ("ready", 1, True)
    assert [model.digest for model in models] == [digests["2"], digests["1"], digests["2"]]
    assert [(one.version, one.state, one.aliases) for one in summary.versions] == [
        ("2", "ready", ("default", "latest")),
        ("1", "ready", ("stable",)),
    ]
    assert [sample.index for sample in (first, *rest)] == list(range(21))
    assert again.image.tobytes() == first.image.tobytes()


def test_stream_whose_version_was_taken_away_does_not_go_on_with_another(running: Serving, admin: AdminClient) -> None:
    admin.load("tiny@2")
    with Client(running.address) as client:
        stream = client.generate("tiny@1", seed=1, endless=True)
        other = client.generate("tiny", seed=1, endless=True, digest=client.get_model("tiny@1").digest)
        next(stream)
        next(other)
        admin.unload("tiny@1", limit_s=0.0)
        with pytest.raises((ModelNotFoundError, ServerUnavailableError)):
            list(stream)
        with pytest.raises(ModelChangedError):
            list(other)


def test_operators_mistakes_are_typed_errors(admin: AdminClient) -> None:
    with pytest.raises(ModelNotFoundError):
        admin.load("tiny@9")
    with pytest.raises(InvalidArgumentError):
        admin.unload("tiny")
    with pytest.raises(PreconditionError):
        admin.set_alias("tiny", "stable", "2")


def test_closed_client_of_operators_says_so(running: Serving) -> None:
    client = AdminClient(running.readiness.admin)
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.list_repository()


def test_client_without_the_right_is_an_access_error(root: Path, tmp_path: Path) -> None:
    clients = ClientFile(tmp_path / "clients.toml", boss={"admin": True}, worker={})
    with serving([], model_repository=root, admin_port=0, tokens=clients.path) as server:
        address = server.readiness.admin
        with AdminClient(address, token=clients.tokens["worker"]) as worker, pytest.raises(AccessError):
            worker.list_repository()
        with AdminClient(address, token=clients.tokens["boss"]) as boss:
            assert [one.version.version for one in boss.list_repository()] == ["2", "1"]


def test_command_loads_moves_and_unloads(command: Command) -> None:
    said = [
        command("load", "tiny@2"),
        command("set-alias", "tiny", "stable", "2"),
        command("remove-alias", "tiny", "stable"),
        command("unload", "tiny@1", "--limit-s", "5"),
    ]

    assert [status for status, _, _ in said] == [0] * 4
    assert said[0][1].startswith("tiny@2 is ready, ")
    assert said[1][1] == "tiny@stable stands for version 2\n"
    assert said[3][1] == "tiny@1 is unloaded\n"
    _, table, _ = command("list")
    head, newest, oldest = [line.split() for line in table.splitlines()]
    assert head[:4] == ["model", "version", "state", "aliases"]
    assert newest[:4] == ["tiny", "2", "ready", "default,latest"]
    assert oldest[:3] == ["tiny", "1", "unloaded"]
    listed = json.loads(command("list", "--json")[1])
    assert [one["version"]["version"] for one in listed] == ["2", "1"]


def test_models_tells_of_every_version_and_why_one_failed(
    running: Serving, admin: AdminClient, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "tiny" / "2" / "weights.bin").unlink()
    with pytest.raises(PreconditionError):
        admin.load("tiny@2")

    assert main(["models", "--address", running.address]) == 0
    text = capsys.readouterr().out
    head, line, empty, *versions = text.splitlines()
    assert (head.split()[0], line.split()[0], empty) == ("name", "tiny", "")
    assert [one.split(maxsplit=2) for one in versions] == [
        ["version", "state", "aliases         reason"],
        ["tiny@2", "failed", "a file of its bundle is missing, altered or cannot be read"],
        ["tiny@1", "ready", "default,latest"],
    ]
    assert main(["models", "--address", running.address, "--json"]) == 0
    [model] = json.loads(capsys.readouterr().out)
    assert [(one["state"], one["reason"]) for one in model["versions"]] == [
        ("failed", "a file of its bundle is missing, altered or cannot be read"),
        ("ready", ""),
    ]


def test_model_that_is_not_ready_is_no_choice_and_says_why_if_it_is_asked_for(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write_tiny_bundle(root / "broken" / "1", name="broken")
    (broken / "weights.bin").unlink()
    with serving([], model_repository=root) as server:
        ask = ["generate", "--address", server.address, "--seed", "1", "--count", "1", "--no-progress"]
        chosen = main([*ask, "--out", str(tmp_path / "chosen")])
        asked = main([*ask, "--out", str(tmp_path / "asked"), "--model", "broken"])
        with Client(server.address) as client:
            ready = {model.name: model.is_ready for model in client.list_models()}
            with pytest.raises(ServerUnavailableError) as caught:
                client.get_model("broken")
    said = capsys.readouterr().err

    assert (chosen, asked) == (0, 1)
    told = (
        "model is 'broken', which is not ready "
        "(1 is failed: a file of its bundle is missing, altered or cannot be read); tell "
    )
    assert f"labelmint: {told}" in said
    assert str(caught.value).startswith(told)
    assert caught.value.retry_after_s is None
    assert ready == {"broken": False, "tiny": True}


def test_command_says_why_it_was_refused(command: Command) -> None:
    status, out, err = command("load", "tiny@9")

    assert (status, out) == (1, "")
    assert err.startswith("labelmint: model is 'tiny@9', expected one of")
