"""How a version of the repository comes up: what it is until it is ready, and what keeps it from that."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint.v1.admin_pb2 import LoadModelRequest, UnloadModelRequest
from labelmint.v1.service_pb2 import ListModelsRequest
from labelmint_service.server import Ending
from tests.service.calls import TIMEOUT_S, collect, expect_failure
from tests.service.reading import read_metrics
from tests.service.repositories import (
    NOT_SERVING,
    SERVING,
    Repository,
    ScriptedLoading,
    digest_of,
    endless,
    explicit,
    failure_of,
    health_of,
    load,
    second_in_load,
    states,
    wait_for_health,
    wanted,
)
from tests.serving import Serving


@pytest.fixture
def served(repository: Repository) -> Iterator[Serving]:
    with explicit(repository) as running:
        yield running


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


@pytest.mark.parametrize(("meanwhile", "state"), [("nothing", "failed"), ("unload", ""), ("load", "ready")])
def test_load_that_ends_after_all_changes_nothing_of_its_version(
    repository: Repository, loading: ScriptedLoading, pool: ThreadPoolExecutor, meanwhile: str, state: str
) -> None:
    repository.add("2", 2)
    with explicit(repository, load=("tiny@1",), load_timeout_s=3.0) as served:
        loading.unmade["2"] = late = threading.Event()
        failed = pool.submit(failure_of, lambda: load(served, "tiny@2"))
        assert "tiny@2 was not loaded and warm after 3 s" in failed.result(TIMEOUT_S)[1]
        if meanwhile == "load":
            load(served, "tiny@2")
        elif meanwhile == "unload":
            served.admin().UnloadModel(UnloadModelRequest(model="tiny@2"), timeout=TIMEOUT_S)
        late.set()
        engine = loading.wait_until_made("2", 1 + (meanwhile == "load"))
        assert engine.closed.wait(TIMEOUT_S)
        assert states(served.admin()) == {"tiny@1": "ready", "tiny@2": state}
        load(served, "tiny@2")
        assert digest_of(served, "tiny@2") == repository.digest(2)
        served.admin().UnloadModel(UnloadModelRequest(model="tiny@2"), timeout=TIMEOUT_S)
        assert all(engine.closed.is_set() for engine in loading.engines["2"])
        assert states(served.admin()) == {"tiny@1": "ready", "tiny@2": ""}


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
    size, own = 64 << 20, 32 << 20  # what the test eats, and more than the process takes or gives back beside it
    with second_in_load(repository, loading, pool) as (served, loads, engine):
        eaten = bytearray(b"\1" * size)
        engine.let_all()
        loads.result(TIMEOUT_S)
        during = read_metrics(served)
        served.admin().UnloadModel(UnloadModelRequest(model="tiny@1"), timeout=TIMEOUT_S)
        after = read_metrics(served)

    assert len(eaten) == size
    assert size - own < during["labelmint_model_memory_bytes", "tiny", "2"] < size + own
    assert during["labelmint_model_memory_bytes", "tiny", "1"] < own
    assert {key for key in after if key[0] == "labelmint_model_memory_bytes"} == {
        ("labelmint_model_memory_bytes", "tiny", "2")
    }
