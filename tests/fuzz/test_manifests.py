"""Hostile manifests through the loader: each is opened as what it says, or refused with the field at fault."""

from __future__ import annotations

import collections
import hashlib
import json
import re
import shutil
import time
from pathlib import Path

import psutil
import pytest
from google.protobuf import json_format

from labelmint.bundle import Bundle, manifest_from_json, manifest_to_json, open_bundle
from labelmint.errors import BundleError, LabelmintError
from labelmint.v1 import bundle_pb2
from labelmint_service.models.served import load_model
from tests.fuzz.hostile_manifests import hostile_manifest
from tests.fuzz.judging import names_field
from tests.protos.manifests import manifest_with_tables, write_bundle
from tests.tiny_bundle import write_tiny_bundle

LONGEST_S = 5.0
"""Of the processor, for one manifest."""
MOST_TEXT = 4_096
MOST_GROWTH_BYTES = 32 * 2**20
LOADED = 10
"""Of so many, one is loaded into an engine as well, if it opens."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle whose manifest has every field, and one with graphs that run."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "full": write_bundle(folder / "full", manifest_with_tables()).root,
        "tiny": write_tiny_bundle(folder / "tiny"),
    }


def check_opened(bundle: Bundle, text: bytes) -> None:
    """The manifest is what protobuf reads, the digest what the documents say, and every file is there."""
    document = json.loads(text)
    assert bundle.manifest == json_format.ParseDict(document, bundle_pb2.Manifest())
    content = json_format.MessageToDict(bundle.manifest, preserving_proto_field_name=True)
    digest = content.pop("digest")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert bundle.digest == digest == hashlib.sha256(canonical.encode()).hexdigest()
    assert manifest_from_json(manifest_to_json(bundle.manifest).encode()) == bundle.manifest
    for file in bundle.manifest.files:
        path = bundle.path_of(file.path)
        assert path.is_relative_to(bundle.root)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def check_refusal(error: LabelmintError) -> None:
    assert 0 < len(str(error)) <= MOST_TEXT
    field = re.sub(r"\[[^\]]*\]", "", error.field)
    assert names_field(bundle_pb2.Manifest, field), f"{error.field!r} is no field of the manifest: {error}"


@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("name", ["full", "tiny"])
def test_manifest_is_opened_as_it_is_or_refused_by_name(
    roots: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    first, count = request.config.getoption("--fuzz-first"), request.config.getoption("--fuzz-cases") // 2
    root = tmp_path / name
    shutil.copytree(roots[name], root)
    original = (root / "manifest.json").read_bytes()
    process, memory = psutil.Process(), 0
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(first, first + max(count, 1)):
        if number == first + count // 2:
            memory = process.memory_info().rss
        text = hostile_manifest(original, number)
        (root / "manifest.json").write_bytes(text)
        began_s = time.process_time()
        try:
            outcomes[open_or_refuse(root, text, is_loaded=name == "tiny" and not number % LOADED)] += 1
        except Exception as error:
            again = f"pytest tests/fuzz/test_manifests.py -k {name} --fuzz-first {number} --fuzz-cases 2"
            raise AssertionError(f"case {number}, alone: python -m {again}: {type(error).__name__}: {error}") from error
        assert time.process_time() - began_s < LONGEST_S, number
    assert process.memory_info().rss - memory < MOST_GROWTH_BYTES or not memory
    print(dict(outcomes))
    if count >= 300:
        assert outcomes["opened"] + outcomes["loaded"] >= count / 50, "too few manifests were sound"
        assert outcomes["ManifestError"] >= count / 5, "too few manifests were not"


def open_or_refuse(root: Path, text: bytes, *, is_loaded: bool) -> str:
    try:
        bundle = open_bundle(root)
    except BundleError as error:
        check_refusal(error)
        return type(error).__name__
    check_opened(bundle, text)
    if is_loaded:
        try:
            load_model(root).engine.close()
        except LabelmintError as error:
            assert str(error)
        return "loaded"
    return "opened"
