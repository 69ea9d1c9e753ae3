"""The model that ships with the service, and a server of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmint.bundle import Bundle, open_bundle
from labelmint_client import Client
from labelmint_service.settings import EMBEDDED_BUNDLE
from tests.serving import Serving, serving


@pytest.fixture(scope="session")
def sources() -> Path:
    """What the embedded bundle was made from: generator, annotations, reports."""
    return Path(__file__).parents[2] / "export" / "toonhead"


@pytest.fixture(scope="session")
def annotated(sources: Path) -> Path:
    """Folder of the sixteen annotated pictures."""
    return sources / "annotations"


@pytest.fixture(scope="session")
def embedded() -> Bundle:
    return open_bundle(EMBEDDED_BUNDLE)


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving([EMBEDDED_BUNDLE]) as running:
        yield running


@pytest.fixture
def client(served: Serving) -> Iterator[Client]:
    with Client(served.address) as client:
        yield client
