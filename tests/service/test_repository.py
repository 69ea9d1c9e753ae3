"""The model repository on real sockets: versions are swapped and unloaded, and aliases moved, while streams run."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from labelmint.v1.admin_pb2 import LoadModelRequest, SetAliasRequest, UnloadModelRequest
from labelmint.v1.admin_pb2_grpc import LabelMintAdminStub
from labelmint.v1.service_pb2 import GetModelRequest
from tests.service.calls import TIMEOUT_S, collect, expect_failure
from tests.service.repositories import (
    NOT_SERVING,
    UNKNOWN,
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


@pytest.mark.parametrize(
    ("request_of", "code", "told"),
    [
        (lambda admin: admin.LoadModel(LoadModelRequest(model="other")), "NOT_FOUND", "expected one of a000"),
        (lambda admin: admin.LoadModel(LoadModelRequest(model="tiny@other")), "NOT_FOUND", "expected one of tiny@1, "),
        (
            lambda admin: admin.UnloadModel(UnloadModelRequest(model="tiny@1")),
            "FAILED_PRECONDITION",
            "alias default, a000",
        ),
    ],
)
def test_refusals_reach_the_caller_however_much_there_is(
    repository: Repository, request_of: Callable[[LabelMintAdminStub], object], code: str, told: str
) -> None:
    names = [f"a{number:03}" + 60 * "b" for number in range(300)]
    for name in names:
        (repository.root / name).mkdir()
        (repository.root / "tiny" / name).mkdir()
    repository.write(json.dumps({"aliases": dict.fromkeys(("default", *names), "1")}))
    with explicit(repository, load=("tiny@1",)) as served:
        got = failure_of(lambda: request_of(served.admin()))

    assert got[0] == code
    assert told in got[1]


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
