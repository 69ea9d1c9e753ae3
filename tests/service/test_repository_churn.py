"""Versions that come, go and move under readers: every stream is one version's, bit for bit, and engines are closed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from labelmint.v1 import service_pb2
from labelmint.v1.admin_pb2 import LoadModelRequest, SetAliasRequest, UnloadModelRequest
from labelmint.v1.service_pb2 import OutputOptions
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, collect, describe_failure, make_request
from tests.service.repositories import Repository, ScriptedLoading, states
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle

VERSIONS = ("1", "2", "3", "4")
REFERENCES = ("tiny", "tiny@latest", "tiny@stable", *(f"tiny@{version}" for version in VERSIONS))
READERS = 4

Batches = list[service_pb2.SampleBatch]


def read(running: Serving, seed: int, ended: threading.Event) -> tuple[list[Batches], set[str]]:
    """Streams of one reader, and how those ended that failed."""
    chance = random.Random(seed)
    stub = running.stub()
    streams: list[Batches] = []
    codes: set[str] = set()
    while not ended.is_set():
        request = make_request(
            model=chance.choice(REFERENCES),
            max_accepted=chance.randint(1, 40),
            output=OutputOptions(fields=EVERY_FIELD),
        )
        batches: Batches = []
        try:
            batches.extend(stub.Generate(request, timeout=TIMEOUT_S))
        except grpc.RpcError as error:
            codes.add(describe_failure(error).code)
        if batches:
            streams.append(batches)
    return streams, codes


def operate(running: Serving, chance: random.Random, count: int) -> set[str]:
    """Asks for so many things, and how those ended that were refused."""
    admin = running.admin()
    codes = set()
    for _ in range(count):
        version = chance.choice(VERSIONS)
        try:
            match chance.choice(["load", "load", "unload", "alias"]):
                case "load":
                    admin.LoadModel(LoadModelRequest(model=f"tiny@{version}"), timeout=TIMEOUT_S)
                case "unload":
                    limit_s = chance.choice([0.0, 0.05, 60.0])
                    admin.UnloadModel(UnloadModelRequest(model=f"tiny@{version}", limit_s=limit_s), timeout=TIMEOUT_S)
                case _:
                    alias = SetAliasRequest(model="tiny", alias="stable", version=version)
                    admin.SetAlias(alias, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            codes.add(describe_failure(error).code)
    return codes


@pytest.mark.parametrize(
    ("operators", "count"),
    [(2, 12), pytest.param(4, 150, marks=[pytest.mark.faults, pytest.mark.timeout(1800)])],
)
def test_every_stream_is_of_one_version_and_no_engine_is_left_open(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch, operators: int, count: int
) -> None:
    sources = {1: bundles["tiny"], 2: write_tiny_bundle(tmp_path / "other", seed=1)}
    repository = Repository(tmp_path / "models", sources)
    (repository.root / "tiny").mkdir()
    for place, version in enumerate(VERSIONS):
        repository.add(version, 1 + place % 2)
    loading = ScriptedLoading()
    monkeypatch.setattr("labelmint_service.models.served.load_engine", loading)
    ended = threading.Event()
    with (
        serving(
            [], model_repository=repository.root, repository_mode="explicit", load=("tiny@1",), admin_port=0, replicas=2
        ) as running,
        ThreadPoolExecutor(READERS + operators) as pool,
    ):
        reading = [pool.submit(read, running, seed, ended) for seed in range(READERS)]
        operating = [pool.submit(operate, running, random.Random(seed), count) for seed in range(operators)]
        try:
            admin_codes = set().union(*(one.result() for one in operating))
        finally:
            ended.set()
        results = [one.result() for one in reading]
        ready = [name for name, state in states(running.admin()).items() if state == "ready"]
        still_open = sum(not engine.closed.is_set() for made in loading.engines.values() for engine in made)

    assert still_open == 2 * len(ready)
    assert admin_codes <= {"NOT_FOUND", "FAILED_PRECONDITION"}
    assert set().union(*(codes for _, codes in results)) <= {"NOT_FOUND", "UNAVAILABLE"}
    truths = {repository.digest(source): repository.truth(source) for source in sources}
    streams = [batches for found, _ in results for batches in found]
    assert len({batches[0].digest for batches in streams}) == 2, "both bundles were to be read"
    for batches in streams:
        [digest] = {batch.digest for batch in batches}
        got = collect(batches)
        assert got.indices == list(range(len(got.indices)))
        truths[digest].check(got)
    assert all(engine.closed.is_set() for made in loading.engines.values() for engine in made)
