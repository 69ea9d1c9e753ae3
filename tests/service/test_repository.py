"""The model repository on real sockets: loaded, swapped and unloaded while streams run."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint.v1 import service_pb2
from labelmint.v1.admin_pb2 import LoadModelRequest, SetAliasRequest, UnloadModelRequest
from labelmint.v1.service_pb2 import GetModelRequest, ListModelsRequest, OutputOptions
from labelmint_service.server import Ending
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, collect, describe_failure, expect_failure, make_request
from tests.service.reading import read_metrics
from tests.service.repositories import (
    LoadingEngine,
    LogReader,
    Repository,
    ScriptedLoading,
    states,
    wait_for_health,
)
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

ALL = OutputOptions(fields=EVERY_FIELD)
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> dict[int, Path]:
    other = write_tiny_bundle(tmp_path_factory.mktemp("sources") / "other", seed=1)
    return {1: bundles["tiny"], 2: other}


@pytest.fixture
def repository(tmp_path: Path, sources: dict[int, Path]) -> Repository:
    made = Repository(tmp_path / "models", sources)
    (made.root / "tiny").mkdir()
    made.add("1", 1)
    return made


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> ScriptedLoading:
    script = ScriptedLoading()
    monkeypatch.setattr("labelmint_service.models.served.load_engine", script)
    return script


def explicit(repository: Repository, **settings: Any) -> Any:  # Any: a context manager of Serving
    given = {"repository_mode": "explicit", "load": ("tiny",), "admin_port": 0, **settings}
    return serving([], model_repository=repository.root, **given)


def polled(repository: Repository, **settings: Any) -> Any:  # Any: a context manager of Serving
    return serving([], model_repository=repository.root, poll_interval_s=0.02, admin_port=0, **settings)


@contextlib.contextmanager
def second_in_load(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor, **settings: Any
) -> Iterator[tuple[Serving, Future[None], LoadingEngine]]:
    """A server of version 1 while it loads version 2: that load, and the engine held in its first run."""
    repository.add("2", 2)
    with explicit(repository, load=("tiny@1",), **settings) as served:
        loading.held.add("2")
        loads = pool.submit(load, served, "tiny@2")
        yield served, loads, loading.wait_for("2")


@pytest.fixture
def served(repository: Repository) -> Iterator[Serving]:
    with explicit(repository) as running:
        yield running


@pytest.fixture
def log() -> Iterator[LogReader]:
    with LogReader() as reader:
        yield reader


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def wanted(model: str, **fields: Any) -> service_pb2.GenerateRequest:  # Any: fields of every type
    return make_request(model=model, output=ALL, **fields)


def endless(model: str) -> service_pb2.GenerateRequest:
    return wanted(model, max_accepted=None, endless=True)


def digest_of(running: Serving, model: str) -> str:
    """Which bundle answers."""
    batches = collect(running.stub().Generate(wanted(model), timeout=TIMEOUT_S)).batches
    [digest] = {batch.digest for batch in batches}
    return digest


def load(running: Serving, model: str) -> None:
    running.admin().LoadModel(LoadModelRequest(model=model), timeout=TIMEOUT_S)


def failure_of(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    failure = describe_failure(caught.value)
    return failure.code, failure.text


def health_of(running: Serving, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(running.channel())
    try:
        return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status)
    except grpc.RpcError:
        return int(UNKNOWN)


# Swap


def test_stream_ends_on_the_version_it_began_with_and_new_ones_get_the_new(
    repository: Repository, served: Serving
) -> None:
    repository.add("2", 2)
    running = served.stub().Generate(endless("tiny"), timeout=TIMEOUT_S)
    batches = [next(running), next(running)]
    load(served, "tiny@2")
    new = collect(served.stub().Generate(wanted("tiny", max_accepted=9), timeout=TIMEOUT_S))
    batches += [next(running) for _ in range(20)]
    running.cancel()
    old = collect(batches)

    assert {batch.digest for batch in new.batches} == {repository.digest(2)}
    assert {batch.digest for batch in batches} == {repository.digest(1)}
    assert old.indices == list(range(len(old.indices)))
    repository.truth(1).check(old)
    repository.truth(2).check(new)


def test_unload_waits_for_the_last_stream_and_then_closes_the_engine(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    repository.add("2", 2)
    with explicit(repository, load=("tiny@1", "tiny@2")) as served:
        stream = served.stub().Generate(endless("tiny@1"), timeout=TIMEOUT_S)
        batches = [next(stream)]
        unloading = pool.submit(served.admin().UnloadModel, UnloadModelRequest(model="tiny@1"), timeout=TIMEOUT_S)
        wait_for_health(served, "tiny@1", NOT_SERVING)
        during = states(served.admin())
        refused = expect_failure(served.stub().Generate(wanted("tiny@1"), timeout=TIMEOUT_S))
        batches += [next(stream) for _ in range(10)]
        [engine] = loading.engines["1"]
        was_open = not engine.closed.is_set() and not unloading.done()
        stream.cancel()
        unloading.result(TIMEOUT_S)
        after = states(served.admin())

        assert (refused.code, during["tiny@1"]) == ("UNAVAILABLE", "unloading")
        assert was_open
        assert engine.closed.is_set()
        assert after == {"tiny@1": "", "tiny@2": "ready"}
        assert health_of(served, "tiny@1") == UNKNOWN
        repository.truth(1).check(collect(batches))


def test_stream_that_outlasts_the_limit_ends_with_where_to_go_on(repository: Repository, served: Serving) -> None:
    repository.add("2", 2)
    load(served, "tiny@2")
    stream = served.stub().Generate(endless("tiny@1"), timeout=TIMEOUT_S)
    batches = [next(stream)]
    served.admin().UnloadModel(UnloadModelRequest(model="tiny@1", limit_s=0.05), timeout=TIMEOUT_S)
    failure = expect_failure(stream)
    batches += failure.batches
    got = collect(batches)

    assert failure.code == "UNAVAILABLE"
    assert failure.detail is not None
    assert failure.detail.next_index == len(got.indices)
    repository.truth(1).check(got)
    resume = wanted("tiny", start_index=failure.detail.next_index, numerics_id=batches[0].numerics_id)
    assert expect_failure(served.stub().Generate(resume, timeout=TIMEOUT_S)).code == "FAILED_PRECONDITION"
    resume.numerics_id = ""
    repository.truth(2).check(collect(served.stub().Generate(resume, timeout=TIMEOUT_S)))


@pytest.mark.parametrize("pin", ["digest", "numerics_id"])
def test_pin_finds_the_older_version_while_it_is_there(repository: Repository, served: Serving, pin: str) -> None:
    first = collect(served.stub().Generate(wanted("tiny"), timeout=TIMEOUT_S))
    repository.add("2", 2)
    load(served, "tiny@2")
    pinned = {pin: getattr(first.batches[0], pin)}
    again = collect(served.stub().Generate(wanted("tiny", **pinned), timeout=TIMEOUT_S))

    assert digest_of(served, "tiny") == repository.digest(2)
    repository.truth(1).check(again)
    named = expect_failure(served.stub().Generate(wanted("tiny@2", **pinned), timeout=TIMEOUT_S))
    assert (named.code, named.detail and named.detail.field) == ("FAILED_PRECONDITION", pin)


# Loads that fail


def spoil(folder: Path, case: str) -> None:
    match case:
        case "altered":
            data = bytearray((folder / "weights.bin").read_bytes())
            data[-1] ^= 1
            (folder / "weights.bin").write_bytes(data)
        case "no manifest":
            (folder / "manifest.json").unlink()
        case _:
            (folder / "model.onnx").unlink()


@pytest.mark.parametrize("case", ["altered", "no manifest", "no graph"])
def test_load_that_fails_leaves_what_is_served(repository: Repository, served: Serving, case: str) -> None:
    stream = served.stub().Generate(endless("tiny"), timeout=TIMEOUT_S)
    batches = [next(stream)]
    spoil(repository.add("2", 2), case)
    code, text = failure_of(lambda: load(served, "tiny@2"))
    batches += [next(stream) for _ in range(5)]
    stream.cancel()

    assert code == "FAILED_PRECONDITION"
    assert str(repository.folder("2")) in text
    assert states(served.admin()) == {"tiny@1": "ready", "tiny@2": "failed"}
    assert digest_of(served, "tiny") == repository.digest(1)
    repository.truth(1).check(collect(batches))
    repository.remove("2")
    repository.add("2", 2)
    load(served, "tiny@2")
    assert digest_of(served, "tiny") == repository.digest(2)
    metrics = read_metrics(served)
    assert [metrics["labelmint_model_loads_total", "tiny", outcome] for outcome in ("ok", "error")] == [2, 1]


def test_engine_that_does_not_run_is_closed_and_the_old_version_stays(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    with second_in_load(repository, loading, pool) as (served, loads, engine):
        engine.fails = lambda _: True
        engine.let_all()
        code, text = failure_of(lambda: loads.result(TIMEOUT_S))

        assert code == "FAILED_PRECONDITION"
        assert "first run" in text
        assert engine.closed.is_set()
        assert digest_of(served, "tiny") == repository.digest(1)


def test_folder_of_another_name_is_refused_with_both_names(repository: Repository, served: Serving) -> None:
    repository.add("1", 2, name="huge")
    code, text = failure_of(lambda: load(served, "huge"))

    assert code == "FAILED_PRECONDITION"
    assert "'tiny'" in text
    assert "'huge'" in text


def test_load_of_what_is_not_in_the_folder_is_refused(repository: Repository, served: Serving) -> None:
    repository.add(".hidden", 2)
    expected = dict.fromkeys(["tiny@9", "other"], "NOT_FOUND") | dict.fromkeys(
        ["tiny@../1", "../tiny@1", "tiny@", "", "tiny@.hidden", "a/b"], "INVALID_ARGUMENT"
    )

    assert {model: failure_of(functools.partial(load, served, model))[0] for model in expected} == expected


def test_load_that_does_not_end_has_failed_and_others_go_on(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    repository.add("3", 2)
    with second_in_load(repository, loading, pool, load_timeout_s=3.0) as (served, loads, stuck):
        code, text = failure_of(lambda: loads.result(TIMEOUT_S))
        assert code == "FAILED_PRECONDITION"
        assert "tiny@2 was not loaded and warm after 3 s" in text
        assert states(served.admin()) == {"tiny@1": "ready", "tiny@2": "failed", "tiny@3": ""}
        refused = expect_failure(served.stub().Generate(wanted("tiny@2"), timeout=TIMEOUT_S))
        assert "it was not loaded and warm in time" in refused.text
        load(served, "tiny@3")
        assert states(served.admin())["tiny@3"] == "ready"
        began_s = time.monotonic()
        served.stop(grace_s=0.0)
        assert time.monotonic() - began_s < 10.0
        assert served.server.ending is Ending.STUCK
        stuck.let_all()


def test_version_named_at_the_start_that_does_not_load_keeps_the_server_from_starting(repository: Repository) -> None:
    spoil(repository.folder("1"), "altered")
    with pytest.raises(Exception, match=r"weights\.bin"), explicit(repository):
        pass


# Health and warm-up


def test_version_that_warms_up_is_not_ready_and_the_old_one_serves(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    with second_in_load(repository, loading, pool) as (served, loads, engine):
        wait_for_health(served, "tiny@2", NOT_SERVING)
        during = states(served.admin()), health_of(served, "tiny"), digest_of(served, "tiny")
        refused = expect_failure(served.stub().Generate(wanted("tiny@2"), timeout=TIMEOUT_S))
        listed = served.stub().ListModels(ListModelsRequest(), timeout=TIMEOUT_S).models[0].versions
        engine.let_all()
        loads.result(TIMEOUT_S)

        assert during == ({"tiny@1": "ready", "tiny@2": "warming"}, SERVING, repository.digest(1))
        assert refused.code == "UNAVAILABLE"
        assert [one.version for one in listed] == ["2", "1"]
        assert [list(one.aliases) for one in listed] == [[], ["default", "latest"]]
        assert health_of(served, "tiny@2") == SERVING
        assert digest_of(served, "tiny") == repository.digest(2)


def test_caller_that_gives_up_does_not_end_the_load(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    repository.add("2", 2)
    with explicit(repository, load=("tiny@1",)) as served:
        loading.held.add("2")
        impatient = served.admin().LoadModel.future(LoadModelRequest(model="tiny@2"), timeout=TIMEOUT_S)
        engine = loading.wait_for("2")
        impatient.cancel()
        patient = pool.submit(load, served, "tiny@2")
        engine.let_all()
        patient.result(TIMEOUT_S)

        assert len(loading.engines["2"]) == 1
        assert digest_of(served, "tiny") == repository.digest(2)


def test_server_is_ready_once_its_first_version_is_warm(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor, unused_port: int
) -> None:
    loading.held.add("1")
    starting: Future[None] = Future()
    ended = threading.Event()

    def run() -> None:
        with explicit(repository, port=unused_port):
            starting.set_result(None)
            ended.wait(TIMEOUT_S)

    served = pool.submit(run)
    engine = loading.wait_for("1")
    with grpc.insecure_channel(f"127.0.0.1:{unused_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        during = [
            health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S, wait_for_ready=True).status
            for name in ("", "tiny", "tiny@1")
        ]
        was_starting = not starting.done()
        engine.let_all()
        starting.result(TIMEOUT_S)
        after = [
            health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status
            for name in ("", "tiny", "tiny@1")
        ]
    ended.set()
    served.result(TIMEOUT_S)

    assert was_starting
    assert (during, after) == ([NOT_SERVING] * 3, [SERVING] * 3)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# Aliases


def alias(running: Serving, name: str, version: str) -> None:
    running.admin().SetAlias(SetAliasRequest(model="tiny", alias=name, version=version), timeout=TIMEOUT_S)


def test_alias_moves_at_once_is_kept_and_holds_its_version(repository: Repository, served: Serving) -> None:
    repository.add("2", 2)
    alias(served, "stable", "1")
    alias(served, "default", "1")
    load(served, "tiny@2")
    before = [digest_of(served, model) for model in ("tiny", "tiny@stable", "tiny@latest")]
    held = failure_of(lambda: served.admin().UnloadModel(UnloadModelRequest(model="tiny@1"), timeout=TIMEOUT_S))
    alias(served, "stable", "2")
    after = [digest_of(served, model) for model in ("tiny", "tiny@stable", "tiny@latest")]

    old, new = repository.digest(1), repository.digest(2)
    assert (before, after) == ([old, old, new], [old, new, new])
    assert held[0] == "FAILED_PRECONDITION"
    assert "default" in held[1]
    written = json.loads((repository.root / "tiny" / "model.json").read_bytes())
    assert written == {"aliases": {"default": "1", "stable": "2"}}
    served.stop()
    with explicit(repository, load=("tiny@stable", "tiny")) as again:
        assert [digest_of(again, model) for model in ("tiny", "tiny@stable")] == [old, new]


def test_alias_that_cannot_be_set_changes_nothing(repository: Repository, served: Serving) -> None:
    repository.add("2", 2)
    expected = {
        ("stable", "2"): "FAILED_PRECONDITION",
        ("latest", "1"): "INVALID_ARGUMENT",
        ("1", "1"): "INVALID_ARGUMENT",
        ("../x", "1"): "INVALID_ARGUMENT",
        ("unset", ""): "NOT_FOUND",
    }

    assert {case: failure_of(functools.partial(alias, served, *case))[0] for case in expected} == expected
    assert not (repository.root / "tiny" / "model.json").exists()


def test_default_whose_version_is_not_loaded_is_not_answered_by_another(repository: Repository) -> None:
    repository.add("2", 2)
    repository.write('{"aliases": {"default": "2"}}')
    with explicit(repository, load=("tiny@1",)) as served:
        refused = expect_failure(served.stub().Generate(wanted("tiny"), timeout=TIMEOUT_S))

        assert refused.code == "UNAVAILABLE"
        assert digest_of(served, "tiny@1") == repository.digest(1)


def test_model_says_which_version_it_is(repository: Repository, served: Serving) -> None:
    repository.add("2", 2)
    load(served, "tiny@2")
    answers = [served.stub().GetModel(GetModelRequest(model=model), timeout=TIMEOUT_S) for model in ("tiny", "tiny@1")]

    assert [answer.version for answer in answers] == ["2", "1"]
    assert [answer.manifest.digest for answer in answers] == [repository.digest(2), repository.digest(1)]
    assert [one.version for one in answers[0].versions] == ["2", "1"]


# Polling


def test_new_version_is_found_and_a_half_copied_one_is_never_served(repository: Repository, log: LogReader) -> None:
    with polled(repository) as served:
        repository.add_part("2", 2)
        log.wait_for("model.load_failed", "weights.bin")
        during = digest_of(served, "tiny"), failure_of(lambda: digest_of(served, "tiny@2"))[0]
        repository.finish("2", 2)
        wait_for_health(served, "tiny@2", SERVING)

        assert during == (repository.digest(1), "UNAVAILABLE")
        repository.truth(2).check(collect(served.stub().Generate(wanted("tiny"), timeout=TIMEOUT_S)))


def test_removed_version_is_unloaded_and_the_one_before_is_the_latest_again(
    repository: Repository, loading: ScriptedLoading
) -> None:
    repository.add("2", 2)
    with polled(repository) as served:
        before = digest_of(served, "tiny")
        stream = served.stub().Generate(endless("tiny"), timeout=TIMEOUT_S)
        batches = [next(stream)]
        repository.remove("2")
        wait_for_health(served, "tiny@2", NOT_SERVING)
        between = digest_of(served, "tiny")
        batches += [next(stream) for _ in range(5)]
        stream.cancel()
        [engine] = loading.engines["2"]

        assert engine.closed.wait(TIMEOUT_S)
        assert (before, between) == (repository.digest(2), repository.digest(1))
        repository.truth(2).check(collect(batches))


@pytest.mark.parametrize("is_empty", [False, True])
def test_folder_that_has_vanished_unloads_nothing(repository: Repository, log: LogReader, is_empty: bool) -> None:
    with polled(repository) as served:
        repository.root.rename(repository.root.with_name("hidden"))
        if is_empty:
            repository.root.mkdir()
        log.wait_for("repository.error", "is empty" if is_empty else "cannot be listed")

        assert digest_of(served, "tiny@1") == repository.digest(1)


def test_alias_of_the_file_waits_until_its_version_is_ready(repository: Repository, loading: ScriptedLoading) -> None:
    repository.write('{"aliases": {"default": "1"}}')
    loading.held.add("2")
    with polled(repository) as served:
        repository.write('{"aliases": {"default": "2"}}')
        repository.add("2", 2)
        engine = loading.wait_for("2")
        during = digest_of(served, "tiny")
        engine.let_all()
        wait_for_health(served, "tiny@2", SERVING)

        assert (during, digest_of(served, "tiny")) == (repository.digest(1), repository.digest(2))


def test_alias_of_a_version_that_is_not_there_is_told_of_once(repository: Repository, log: LogReader) -> None:
    with polled(repository) as served:
        repository.write('{"aliases": {"default": "9"}}')
        log.wait_for("repository.error", "default for 9")
        wait_for_health(served, "tiny", NOT_SERVING)
        repository.write("{}")
        wait_for_health(served, "tiny", SERVING)


def test_file_of_aliases_that_cannot_be_read_leaves_the_old_ones(repository: Repository, log: LogReader) -> None:
    repository.add("2", 2)
    repository.write('{"aliases": {"default": "1"}}')
    with polled(repository) as served:
        repository.write('{"aliases": {"default": 2}}')
        log.wait_for("repository.error", "aliases.default")

        assert digest_of(served, "tiny") == repository.digest(1)


def test_polled_repository_is_not_unloaded_by_hand(repository: Repository) -> None:
    with polled(repository) as served:
        code, text = failure_of(
            lambda: served.admin().UnloadModel(UnloadModelRequest(model="tiny@1"), timeout=TIMEOUT_S)
        )

    assert code == "FAILED_PRECONDITION"
    assert "folder" in text


# Memory


def test_version_that_needs_more_memory_than_it_may_is_refused_with_numbers(
    repository: Repository, served: Serving
) -> None:
    repository.add("2", 2)
    repository.write('{"memory_limit_bytes": 100}')
    code, text = failure_of(lambda: load(served, "tiny@2"))

    assert code == "RESOURCE_EXHAUSTED"
    assert "its limit is 100" in text
    assert digest_of(served, "tiny") == repository.digest(1)


def test_growth_of_the_process_counts_against_the_limit_and_closes_what_grew(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    limit = 64 << 20
    with second_in_load(repository, loading, pool, model_memory_bytes=limit) as (_, loads, engine):
        eaten = bytearray(b"\1" * (2 * limit))
        engine.let_all()
        code, text = failure_of(lambda: loads.result(TIMEOUT_S))

        assert len(eaten) == 2 * limit
        assert (code, engine.closed.is_set()) == ("RESOURCE_EXHAUSTED", True)
        assert f"its limit is {limit:,}" in text


def test_metrics_tell_by_how_much_the_process_grew_while_a_version_is_there(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    size, own = 64 << 20, 32 << 20  # what the test eats, and more than the version takes
    with second_in_load(repository, loading, pool) as (served, loads, engine):
        eaten = bytearray(b"\1" * size)
        engine.let_all()
        loads.result(TIMEOUT_S)
        during = read_metrics(served)
        served.admin().UnloadModel(UnloadModelRequest(model="tiny@1"), timeout=TIMEOUT_S)
        after = read_metrics(served)

    assert len(eaten) == size
    assert size <= during["labelmint_model_memory_bytes", "tiny", "2"] < size + own
    assert during["labelmint_model_memory_bytes", "tiny", "1"] < own
    assert {key for key in after if key[0] == "labelmint_model_memory_bytes"} == {
        ("labelmint_model_memory_bytes", "tiny", "2")
    }


# Stopping


def test_server_stops_while_a_version_warms_up(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor
) -> None:
    with second_in_load(repository, loading, pool) as (served, loads, engine):
        stopping = pool.submit(served.stop)
        wait_for_health(served, "", NOT_SERVING)
        engine.let_all()
        code, _ = failure_of(lambda: loads.result(TIMEOUT_S))
        stopping.result(TIMEOUT_S)

    assert code == "UNAVAILABLE"
    assert all(one.closed.is_set() for made in loading.engines.values() for one in made)
