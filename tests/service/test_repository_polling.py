"""A repository that is polled: the server serves what lies in the folder, and what its file of aliases says."""

from __future__ import annotations

import pytest

from labelmint.v1.admin_pb2 import UnloadModelRequest
from tests.service.calls import TIMEOUT_S, collect
from tests.service.repositories import (
    NOT_SERVING,
    SERVING,
    LogReader,
    Repository,
    ScriptedLoading,
    digest_of,
    endless,
    failure_of,
    polled,
    wait_for_health,
    wanted,
)


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
