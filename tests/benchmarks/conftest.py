"""Bundles that the tests of this folder share."""

from pathlib import Path

import pytest

from labelmint.bundle import open_bundle, write_manifest
from labelmint_export.datasets.toonhead import CLASS_NAMES
from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def toonish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random shapes that claim to be ToonHead's classes."""
    root = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "toonish", name="toonish", num_classes=8)
    manifest = open_bundle(root).manifest
    del manifest.classes[:]
    for number, name in enumerate(CLASS_NAMES):
        manifest.classes.add(name=name, red=number)
    write_manifest(root, manifest)
    return root
