"""Bundles and a server that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmint.v1 import service_pb2_grpc
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
