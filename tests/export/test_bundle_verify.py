"""Verification finds every damage and passes what is whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from labelmint.bundle import manifest_from_json, write_manifest
from labelmint.errors import BundleError, BundleNotFoundError, LabelmintError
from labelmint.v1 import bundle_pb2
from labelmint_export.bundle.verify import verify_bundle
from labelmint_export.errors import BuildError
from tests.export.built_bundle import BuiltBundle, external_place
from tests.export.tiny_parts import make_generator, make_interpreter

FILES = ("mapping.onnx", "synthesis.onnx", "interpreter.onnx", "model.onnx", "weights.bin", "manifest.json")


@pytest.fixture
def copy(plain_built: BuiltBundle, tmp_path: Path) -> Path:
    shutil.copytree(plain_built.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_whole_bundle_passes(built: BuiltBundle) -> None:
    results = dict(verify_bundle(built.path, num_samples=5))
    assert results["digest"] == built.manifest.digest
    assert results["files"].startswith("5 files")
    assert "finite" in results["model"]
    assert results["image score"].startswith("median 0.")


def test_whole_bundle_passes_beside_its_parts(built: BuiltBundle) -> None:
    results = dict(verify_bundle(built.path, (built.generator, built.interpreter), num_samples=2))
    assert "onnx_vs_reference.label_agreement" in results


def test_bundle_of_other_parts_fails(plain_built: BuiltBundle) -> None:
    other = make_interpreter(plain_built.generator.tap_specs, 16, seed=9)
    with pytest.raises(BuildError, match=r"onnx_vs_reference\.label_agreement is") as caught:
        verify_bundle(plain_built.path, (plain_built.generator, other), num_samples=1)
    assert caught.value.field == "parity"
    with pytest.raises(BuildError, match=r"onnx_vs_reference\.image_max_error_levels is"):
        verify_bundle(plain_built.path, (make_generator(seed=9), plain_built.interpreter), num_samples=1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.37, 0.8, 1.0])
def test_flipped_bit_is_found(copy: Path, name: str, where: float) -> None:
    content = bytearray((copy / name).read_bytes())
    content[int((len(content) - 1) * where)] ^= 0x04
    (copy / name).write_bytes(content)
    with pytest.raises(LabelmintError):
        verify_bundle(copy, num_samples=1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_truncated_file_is_found(copy: Path, name: str, keep: float) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BundleError):
        verify_bundle(copy, num_samples=1)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_found(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        verify_bundle(copy, num_samples=1)


def test_missing_folder_is_found(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        verify_bundle(tmp_path / "nowhere")


def seal(copy: Path, change: Callable[[bundle_pb2.Manifest], None] = lambda manifest: None) -> None:
    """Hash a changed bundle anew, so that only running it can tell."""
    manifest = manifest_from_json((copy / "manifest.json").read_bytes())
    change(manifest)
    write_manifest(copy, manifest)


def test_parts_that_do_not_make_the_model_are_found(copy: Path) -> None:
    """The model graph reads other weights than its parts."""
    weights = bytearray((copy / "weights.bin").read_bytes())
    model = onnx.load(copy / "model.onnx", load_external_data=False)
    places = [external_place(tensor) for tensor in model.graph.initializer if tensor.external_data]
    for _, offset, length in places:
        numbers = np.frombuffer(weights, np.float32, length // 4, offset)
        weights[offset : offset + length] = (numbers[::-1]).tobytes()
    (copy / "weights2.bin").write_bytes(weights)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "weights2.bin"
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    seal(copy)
    with pytest.raises(BuildError, match="model and its parts agree on") as caught:
        verify_bundle(copy, num_samples=4)
    assert caught.value.field == "graphs"


def test_graph_that_does_not_load_is_found(copy: Path) -> None:
    (copy / "synthesis.onnx").write_bytes(b"no graph" * 50)
    seal(copy)
    with pytest.raises(BuildError, match=r"onnxruntime does not load synthesis\.onnx") as caught:
        verify_bundle(copy, num_samples=1)
    assert caught.value.field == "graphs"


def test_label_outside_the_named_classes_is_found(copy: Path) -> None:
    def forget_classes(manifest: bundle_pb2.Manifest) -> None:
        del manifest.classes[2:]

    seal(copy, forget_classes)
    with pytest.raises(BuildError, match="a label lies outside the classes") as caught:
        verify_bundle(copy, num_samples=4)
    assert caught.value.field == "classes"


@pytest.mark.parametrize("count", [0, -1])
def test_no_samples_are_refused(copy: Path, count: int) -> None:
    with pytest.raises(BuildError, match="num_samples") as caught:
        verify_bundle(copy, num_samples=count)
    assert caught.value.field == "num_samples"
