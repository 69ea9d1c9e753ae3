"""Manifests that once got past the loader's checks, and cut ones; tests/fuzz has the many."""

import json
from pathlib import Path

import pytest

from labelmint.bundle import open_bundle
from labelmint.errors import BundleError
from tests.protos.manifests import write_bundle

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bundle").root


@pytest.fixture(scope="module")
def original(root: Path) -> bytes:
    return (root / "manifest.json").read_bytes()


def test_every_truncation_of_a_manifest_is_refused(root: Path, original: bytes) -> None:
    for length in range(0, len(original) - 2, 7):
        (root / "manifest.json").write_bytes(original[:length])
        with pytest.raises(BundleError):
            open_bundle(root)


@pytest.mark.parametrize("change", [{"backbone": "\ud800"}, {"\ud800": 1}, {"name": "\ud800"}, {"taps": ["\ud800"]}])
def test_manifest_with_half_a_character_is_refused(root: Path, original: bytes, change: dict[str, Json]) -> None:
    (root / "manifest.json").write_text(json.dumps({**json.loads(original), **change}), encoding="utf-8")
    with pytest.raises(BundleError):
        open_bundle(root)


def test_refusal_quotes_little_of_a_long_key(root: Path, original: bytes) -> None:
    (root / "manifest.json").write_text(json.dumps({**json.loads(original), "x" * 100_000: 1}), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        open_bundle(root)
    assert len(str(caught.value)) < 1000
