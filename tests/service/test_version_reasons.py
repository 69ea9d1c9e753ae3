"""What every caller is told of versions that are not ready: the state and a few words, and nothing of the server's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from labelmint.v1 import service_pb2
from labelmint.v1.admin_pb2 import ListRepositoryRequest, LoadModelRequest
from labelmint.v1.service_pb2 import GetModelRequest, ListModelsRequest
from tests.client_files import ClientFile
from tests.service.calls import TIMEOUT_S, collect, describe_failure, expect_failure, make_request
from tests.service.repositories import Repository, ScriptedLoading, wait_for_health
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

FAILED, READY = service_pb2.VERSION_STATE_FAILED, service_pb2.VERSION_STATE_READY
SECRET = "the text of an error that nobody expected"


@pytest.fixture
def repository(tmp_path: Path, bundles: dict[str, Path]) -> Repository:
    other = write_tiny_bundle(tmp_path / "sources" / "other", name="other")
    made = Repository(tmp_path / "models", {1: bundles["tiny"], 2: other})
    (made.root / "tiny").mkdir()
    made.add("1", 1)
    return made


@pytest.fixture
def served(repository: Repository) -> Iterator[Serving]:
    with serving(
        [], model_repository=repository.root, repository_mode="explicit", load=("tiny@1",), admin_port=0
    ) as running:
        yield running


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def of_the_future(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}), encoding="utf-8")


def refuse_to_run(loading: ScriptedLoading) -> Callable[..., Any]:  # Any: an engine
    def load_engine(*arguments: Any, **options: Any) -> Any:  # Any: passed on
        engine = loading(*arguments, **options)
        engine.fails = lambda _: True
        return engine

    return load_engine


def break_down(*_: object, **__: object) -> None:
    raise RuntimeError(SECRET)


def listed(running: Serving, **options: Any) -> list[service_pb2.ModelSummary]:  # Any: of the call
    return list(running.stub().ListModels(ListModelsRequest(), timeout=TIMEOUT_S, **options).models)


def refusal(running: Serving, model: str) -> tuple[str, str, bool]:
    """Code, text, and whether the server says when to ask again."""
    with pytest.raises(grpc.RpcError) as caught:
        running.stub().GetModel(GetModelRequest(model=model), timeout=TIMEOUT_S)
    error: BaseException = caught.value
    assert isinstance(error, grpc.Call)
    failure = describe_failure(error)
    return failure.code, failure.text, "grpc-status-details-bin" in dict(error.trailing_metadata() or ())


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("altered", "a file of its bundle is missing, altered or cannot be read"),
        ("empty", "there is no bundle in its folder"),
        ("future", "its manifest is malformed, or newer than the server"),
        ("other", "its bundle is that of another model"),
        ("memory", "it needs more memory than it may have"),
        ("engine", "the engine of the server does not run it"),
        ("defect", "an error of the server"),
    ],
)
def test_version_that_failed_says_why_and_names_nothing_of_the_server(
    repository: Repository, served: Serving, monkeypatch: pytest.MonkeyPatch, case: str, reason: str
) -> None:
    folder = repository.add("2", 2 if case == "other" else 1)
    match case:
        case "altered":
            flip(folder / "weights.bin")
        case "empty":
            (folder / "manifest.json").unlink()
        case "future":
            of_the_future(folder)
        case "memory":
            repository.write('{"memory_limit_bytes": 100}')
        case "engine":
            monkeypatch.setattr("labelmint_service.models.served.load_engine", refuse_to_run(ScriptedLoading()))
        case "defect":
            monkeypatch.setattr("labelmint_service.models.served.load_engine", break_down)
    with pytest.raises(grpc.RpcError):
        served.admin().LoadModel(LoadModelRequest(model="tiny@2"), timeout=TIMEOUT_S)

    [model] = listed(served)
    described = served.stub().GetModel(GetModelRequest(model="tiny"), timeout=TIMEOUT_S)
    code, text, has_hint = refusal(served, "tiny@2")
    expected = [("2", FAILED, reason), ("1", READY, "")]
    assert [(one.version, one.state, one.reason) for one in model.versions] == expected
    assert list(described.versions) == list(model.versions)
    assert (code, has_hint) == ("UNAVAILABLE", False)
    assert f"(2 is failed: {reason}); tell the operator, or ask for tiny@1" in text
    for answer in (str(model), str(described.versions), text):
        assert str(repository.root) not in answer
        assert SECRET not in answer
    [for_operators] = served.admin().ListRepository(ListRepositoryRequest(), timeout=TIMEOUT_S).models
    assert for_operators.versions[0].reason not in {"", reason}


def test_version_that_warms_up_is_worth_asking_for_again(
    repository: Repository, served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add("2", 1)
    loading = ScriptedLoading()
    loading.held.add("2")
    monkeypatch.setattr("labelmint_service.models.served.load_engine", loading)
    load = served.admin().LoadModel.future(LoadModelRequest(model="tiny@2"), timeout=TIMEOUT_S)
    engine = loading.wait_for("2")
    [model] = listed(served)
    code, text, has_hint = refusal(served, "tiny@2")
    engine.let_all()
    load.result(TIMEOUT_S)

    assert (model.versions[0].state, model.versions[0].reason) == (service_pb2.VERSION_STATE_WARMING, "")
    assert (code, has_hint) == ("UNAVAILABLE", True)
    assert "(2 is warming); ask again later, or ask for tiny@1" in text


def test_model_of_which_nothing_is_ready_is_listed_until_it_is_well(repository: Repository) -> None:
    flip(repository.folder("1") / "weights.bin")
    with serving([], model_repository=repository.root, poll_interval_s=0.02) as running:
        [model] = listed(running)
        code, text, _ = refusal(running, "tiny")
        refused = expect_failure(running.stub().Generate(make_request(model="tiny"), timeout=TIMEOUT_S))
        repository.finish("1", 1)
        wait_for_health(running, "tiny", health_pb2.HealthCheckResponse.SERVING)
        [well] = listed(running)

        assert (model.name, model.version, model.digest, model.numerics_id) == ("tiny", "", "", "")
        assert [one.state for one in model.versions] == [FAILED]
        assert (code, refused.code) == ("UNAVAILABLE", "UNAVAILABLE")
        assert "(1 is failed: a file of its bundle is missing, altered or cannot be read)" in text
        assert refused.text == text
        assert [(one.state, one.reason) for one in well.versions] == [(READY, "")]
        assert well.digest == repository.digest(1)
        assert collect(running.stub().Generate(make_request(model="tiny"), timeout=TIMEOUT_S)).indices


def test_model_whose_default_is_not_ready_is_listed_with_what_is(repository: Repository) -> None:
    flip(repository.add("2", 1) / "weights.bin")
    repository.write('{"aliases": {"default": "2"}}')
    with serving([], model_repository=repository.root) as running:
        [model] = listed(running)

        assert model.digest == ""
        assert [(one.version, one.state, list(one.aliases)) for one in model.versions] == [
            ("2", FAILED, []),
            ("1", READY, ["latest"]),
        ]
        code, text, _ = refusal(running, "tiny")
        assert code == "UNAVAILABLE"
        assert "(2 is failed: a file of its bundle is missing" in text
        assert "1 is ready" not in text
        assert "tell the operator, or ask for tiny@1" in text


def test_alias_of_a_version_that_is_missing_names_it(repository: Repository) -> None:
    repository.write('{"aliases": {"default": "9"}}')
    with serving([], model_repository=repository.root) as running:
        code, text, _ = refusal(running, "tiny")

        assert code == "UNAVAILABLE"
        assert "which is not ready (9 is not there); tell the operator, or ask for tiny@1" in text


def test_whom_a_model_is_closed_to_is_told_nothing_of_it(repository: Repository, tmp_path: Path) -> None:
    flip(repository.folder("1") / "weights.bin")
    clients = ClientFile(tmp_path / "clients.toml", friend={"models": ["tiny"]}, stranger={"models": ["other"]})
    with serving([], model_repository=repository.root, tokens=clients.path) as running:
        assert [model.name for model in listed(running, metadata=clients.of("friend"))] == ["tiny"]
        assert listed(running, metadata=clients.of("stranger")) == []


def test_error_about_a_model_of_many_versions_stays_short(repository: Repository) -> None:
    for number in range(2, 40):
        repository.folder(str(number)).mkdir()
    flip(repository.folder("1") / "weights.bin")
    with serving([], model_repository=repository.root) as running:
        code, text, _ = refusal(running, "tiny")

        assert code == "UNAVAILABLE"
        assert text.count("is failed") == 8
        assert "(39 is failed: there is no bundle in its folder; 38 is failed" in text
        assert len(listed(running)[0].versions) == 39
