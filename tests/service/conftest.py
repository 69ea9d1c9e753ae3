"""Bundles, a server and a repository that the tests of this folder share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labelmint.v1 import service_pb2_grpc
from tests.service.repositories import LogReader, Repository, ScriptedLoading
from tests.serving import Serving, serving
from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """tiny: plain; classy: conditional, with truncation cutoff, without keypoints; poisoned: non-finite if z[0] > 1."""
    root = tmp_path_factory.mktemp("bundles")
    return {
        "tiny": write_tiny_bundle(root / "tiny"),
        "classy": write_tiny_bundle(root / "classy", name="classy", c_dim=3, cutoff=2, keypoints=0),
        "poisoned": write_tiny_bundle(root / "poisoned", name="poisoned", poison_above=1.0),
    }


@pytest.fixture(scope="session")
def served(bundles: dict[str, Path]) -> Iterator[Serving]:
    """One server for all tests that leave it as it is."""
    with serving(list(bundles.values()), progress_interval_s=0.05) as running:
        yield running


@pytest.fixture(scope="session")
def stub(served: Serving) -> service_pb2_grpc.LabelMintStub:
    return served.stub()


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> dict[int, Path]:
    """Bundles of one name for versions of a repository."""
    other = write_tiny_bundle(tmp_path_factory.mktemp("sources") / "other", seed=1)
    return {1: bundles["tiny"], 2: other}


@pytest.fixture
def repository(tmp_path: Path, sources: dict[int, Path]) -> Repository:
    """Version 1 of "tiny"."""
    made = Repository(tmp_path / "models", sources)
    (made.root / "tiny").mkdir()
    made.add("1", 1)
    return made


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> ScriptedLoading:
    script = ScriptedLoading()
    monkeypatch.setattr("labelmint_service.models.served.load_engine", script)
    return script


@pytest.fixture
def log() -> Iterator[LogReader]:
    with LogReader() as reader:
        yield reader


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads
