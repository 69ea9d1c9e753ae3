"""Mutated manifests: whatever stands in `manifest.json`, opening gives a bundle or a BundleError."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelmint.bundle import manifest_digest, manifest_from_json, open_bundle
from labelmint.errors import BundleError
from tests.protos.manifests import write_bundle

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["../x", "/etc/passwd", "NaN", "Infinity", "-1", "1e999", "manifest.json", "a\x00b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bundle").root


@pytest.fixture(scope="module")
def original(root: Path) -> bytes:
    return (root / "manifest.json").read_bytes()


def places(document: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """List the path of each value of a document."""
    if path:
        yield path
    items: list[tuple[str | int, Json]] = []
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(document: Json, path: tuple[str | int, ...], action: str, value: Json) -> Json:
    document = copy.deepcopy(document)
    target = document
    for key in path[:-1]:
        target = target[key]  # type: ignore[index]  # the path fits the document
    if action == "delete":
        del target[path[-1]]  # type: ignore[arg-type,union-attr]  # as above
    elif action == "replace":
        target[path[-1]] = value  # type: ignore[index]  # as above
    elif isinstance(target, list):
        target.append(value)
    else:
        target["surprise"] = value  # type: ignore[index]  # as above
    return document


def open_or_refuse(root: Path, text: bytes) -> None:
    (root / "manifest.json").write_bytes(text)
    try:
        bundle = open_bundle(root)
    except BundleError as error:
        assert str(error)
    else:
        assert bundle.digest == manifest_digest(bundle.manifest)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_manifest_with_changed_values_is_opened_or_refused(root: Path, original: bytes, data: st.DataObject) -> None:
    document = json.loads(original)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(document))))
        action = data.draw(st.sampled_from(["replace", "replace", "delete", "add"]))
        document = mutated(document, path, action, data.draw(_JSON))
    text = json.dumps(document)
    try:
        # With the right digest, so that nothing but the values stands in the way.
        document["digest"] = manifest_digest(manifest_from_json(text.encode()))
        text = json.dumps(document)
    except BundleError:
        pass
    open_or_refuse(root, text.encode())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), length=st.integers(0, 40), replacement=st.binary(max_size=20))
def test_manifest_with_changed_bytes_is_opened_or_refused(
    root: Path, original: bytes, position: float, length: int, replacement: bytes
) -> None:
    start = int(position * len(original))
    open_or_refuse(root, original[:start] + replacement + original[start + length :])


def test_every_truncation_of_a_manifest_is_refused(root: Path, original: bytes) -> None:
    for length in range(0, len(original) - 2, 7):
        (root / "manifest.json").write_bytes(original[:length])
        with pytest.raises(BundleError):
            open_bundle(root)
