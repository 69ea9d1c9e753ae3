"""`export` and `verify --engine` from the command line."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from labelmint.bundle import open_bundle
from labelmint.v1 import bundle_pb2
from labelmint_export.bundle.runtime import GraphRunner
from labelmint_export.targets import onnx_target
from labelmint_export.targets.onnx_target import MODEL_FILE
from labelmint_export.targets.protocol import Device
from labelmint_export.targets.record import RECORD_NAME
from labelmint_export.targets.verifying import EngineVerification
from tests.export.built_bundle import BuiltBundle
from tests.export.targets.made import run_command, save_sources


@pytest.fixture(scope="module")
def sources(plain_built: BuiltBundle, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return save_sources(plain_built, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def targets(plain_built: BuiltBundle, sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "targets"
    kinds = ["--target", "onnx", "torchscript", "triton", "--precision", "float32", "float16"]
    status, printed, complained = run_command(
        "export", plain_built.path, *sources, *kinds, "--out", out, "--profile", 1, 2, 4
    )
    assert status == 0, complained
    assert printed.count("wrote ") == 6
    return out


@pytest.fixture
def copy(targets: Path, tmp_path: Path) -> Path:
    shutil.copytree(targets, tmp_path / "targets")
    return tmp_path / "targets"


def test_each_target_has_a_manifest_with_hashes_terms_and_tolerances(targets: Path, plain_built: BuiltBundle) -> None:
    folders = sorted(path.name for path in targets.iterdir())
    assert folders == [f"{t}-{p}" for t in ("onnx", "torchscript", "triton") for p in ("float16", "float32")]
    for name in folders:
        record = json.loads((targets / name / RECORD_NAME).read_text())
        assert record["name"] == name
        assert record["bundle"]["digest"] == plain_built.manifest.digest
        assert record["profile"] == {"min_batch": 1, "opt_batch": 2, "max_batch": 4}
        assert record["licence"]["attribution"] == plain_built.settings.attribution
        assert record["tolerances"]["label_agreement"]["tolerance"] >= 0.995
        assert record["versions"]["torch"]
        files = {path.relative_to(targets / name).as_posix() for path in (targets / name).rglob("*") if path.is_file()}
        assert {file["path"] for file in record["files"]} == files - {RECORD_NAME}
        for file in record["files"]:
            content = (targets / name / file["path"]).read_bytes()
            assert file["sha256"] == hashlib.sha256(content).hexdigest()


def test_verify_compares_every_engine_with_the_reference(
    targets: Path, plain_built: BuiltBundle, sources: list[str], tmp_path: Path
) -> None:
    engines = ["--engine", "bundle,onnx-float32,torchscript-float32", "--targets", targets, "--samples", 5]
    report = tmp_path / "report.json"
    status, printed, complained = run_command("verify", plain_built.path, *sources, *engines, "--json", report)
    assert status == 0, complained
    assert "onnx-float32: onnxruntime, cpu" in printed
    assert "label_agreement" in printed
    engines_seen = {engine["engine"]: engine for engine in json.loads(report.read_text())["engines"]}
    assert set(engines_seen) == {"bundle", "onnx-float32", "torchscript-float32"}
    for engine in engines_seen.values():
        measured = {check["name"]: check["measured"] for check in engine["checks"]}
        assert engine["holds"]
        assert measured["label_agreement"] >= 0.9995
        assert measured["image_max_error_levels"] <= 1
        assert 0 < measured["uncertainty_mean_error"] < 3e-4


def test_half_precision_that_is_not_rounded_here_brings_its_emulation(
    targets: Path, plain_built: BuiltBundle, sources: list[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    engines = ["--engine", "onnx-float16", "--targets", targets, "--samples", 3, "--json", report]
    run_command("verify", plain_built.path, *sources, *engines)  # random labels may miss what trained ones keep
    seen = {engine["engine"]: engine for engine in json.loads(report.read_text())["engines"]}
    assert list(seen) == ["onnx-float16", "emulated-float16"]
    assert "in float32" in seen["onnx-float16"]["computes"]
    assert not seen["onnx-float16"]["rounds_to_precision"]
    assert "rounded to float16" in seen["emulated-float16"]["computes"]
    for engine in seen.values():
        measured = {check["name"]: check["measured"] for check in engine["checks"]}
        assert measured["label_agreement"] > 0.98
        assert measured["image_mean_error_levels"] > 0


@pytest.mark.parametrize("name", ["bundle", "all"])
def test_bundle_that_is_asked_for_on_a_gpu_does_not_run_on_the_processor(
    plain_built: BuiltBundle, sources: list[str], name: str
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    engine = ["--engine", name, "--device", "cuda", "--samples", 1]
    status, _, complained = run_command("verify", plain_built.path, *sources, *engine)
    assert status == 1
    assert "device is cuda, where no engine runs here (bundle: not run: onnxruntime has" in complained
    assert "install onnxruntime-gpu" in complained


def test_bundle_runs_where_it_is_asked_for_with_its_own_options(
    plain_built: BuiltBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, bundle_pb2.OnnxRuntimeOptions, Device]] = []

    def run_here(path: Path, options: bundle_pb2.OnnxRuntimeOptions, device: Device) -> GraphRunner:
        asked.append((path, options, device))
        return GraphRunner(path, options, "cpu")

    monkeypatch.setattr(onnx_target, "GraphRunner", run_here)
    bundle = open_bundle(plain_built.path)
    parts = bundle, plain_built.generator, plain_built.interpreter
    (report,) = EngineVerification(*parts, num_samples=1, device="cuda").compare(["bundle"])
    manifest = bundle.manifest
    assert asked == [(bundle.path_of(manifest.graphs.model), manifest.runtime.onnxruntime, "cuda")]
    assert (report.computes, report.rounds, report.holds) == ("onnxruntime, cuda", True, True)


def test_emulation_on_a_gpu_is_refused(plain_built: BuiltBundle, sources: list[str]) -> None:
    engine = ["--engine", "emulated-float16", "--device", "cuda", "--samples", 1]
    status, _, complained = run_command("verify", plain_built.path, *sources, *engine)
    assert status == 1
    assert "engine is emulated-float16 and device is cuda, expected cpu" in complained


class Damaged(torch.nn.Module):
    """A program one of whose outputs is wrong."""

    def __init__(self, program: torch.nn.Module, output: str) -> None:
        super().__init__()
        self.program, self.output = program, output

    def forward(self, z: torch.Tensor, psi: torch.Tensor) -> tuple[torch.Tensor, ...]:
        image, label, uncertainty, keypoints, finite = self.program(z, psi)
        x, rest, visible = keypoints.split([1, 2, 1], dim=2)
        if self.output == "image":
            image = 255 - image
        elif self.output == "label":
            label = 3 - label
        elif self.output == "uncertainty_map":
            uncertainty = uncertainty * torch.nan
        elif self.output == "keypoints":
            x = x + 1
        else:
            visible = 1 - visible
        return image, label, uncertainty, torch.cat([x, rest, visible], dim=2), finite


def seal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda record: None) -> None:
    """Describe a changed target anew, so that hashes cannot tell."""
    record = json.loads((folder / RECORD_NAME).read_text())
    for file in record["files"]:
        content = (folder / file["path"]).read_bytes()
        file["num_bytes"], file["sha256"] = len(content), hashlib.sha256(content).hexdigest()
    change(record)
    (folder / RECORD_NAME).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("image", "image_mean_error_levels"),
        ("label", "label_agreement"),
        ("uncertainty_map", "uncertainty_mean_error"),
        ("keypoints", "keypoints_within_0_05_px"),
        ("visibility", "keypoint_visibility_agreement"),
    ],
)
def test_target_with_one_wrong_output_fails(
    copy: Path, plain_built: BuiltBundle, sources: list[str], output: str, told: str
) -> None:
    folder, report = copy / "torchscript-float32", copy / "report.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about TorchScript
        program = torch.jit.load(folder / "model.pt")  # type: ignore[no-untyped-call]  # torch.jit has no types
        inputs = torch.zeros(2, 8), torch.ones(2)
        traced = torch.jit.trace(Damaged(program, output), inputs, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, folder / "model.pt")
    seal(folder)
    engine = ["--engine", "torchscript-float32", "--targets", copy, "--samples", 3, "--json", report]
    status, _, complained = run_command("verify", plain_built.path, *sources, *engine)
    assert status == 1
    assert "miss a tolerance" in complained
    checks = json.loads(report.read_text(), parse_constant=pytest.fail)["engines"][0]["checks"]  # JSON has no NaN
    missed = {check["name"]: check["measured"] for check in checks if not check["holds"]}
    assert told in missed
    assert (missed[told] is None) == (output == "uncertainty_map")


@pytest.mark.parametrize("name", ["torchscript-float32", "onnx-float32"])
def test_target_that_does_not_load_fails_among_all_others_too(
    copy: Path, plain_built: BuiltBundle, sources: list[str], name: str
) -> None:
    for path in copy.iterdir():
        if path.name != name:
            shutil.rmtree(path)
    record = json.loads((copy / name / RECORD_NAME).read_text())
    model = copy / name / record["files"][0]["path"]
    model.write_bytes(model.read_bytes()[:1000])
    seal(copy / name)
    status, _, complained = run_command(
        "verify", plain_built.path, *sources, "--engine", "all", "--targets", copy, "--samples", 1
    )
    assert status == 1
    assert "export it anew" in complained or "does not load model.onnx" in complained


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda record: record["tolerances"].pop("label_agreement"), "tolerance label_agreement in "),
        (
            lambda record: record["tolerances"]["label_agreement"].update(bound="max"),
            "expected a number with bound min",
        ),
        (lambda record: record["tolerances"]["label_agreement"].update(tolerance=math.nan), "is nan with bound min"),
        (lambda record: record["files"][0].update(num_bytes=math.inf), "describes no target"),
        (lambda record: record.update(precision=["float32"]), "expected one of"),
        (
            lambda record: record.update(format_version=2),
            "expected 'labelmint-target' version 1; write the target anew",
        ),
        (lambda record: record.update(padding=" " * (16 << 20)), "more than 16777216 bytes"),
    ],
)
def test_manifest_that_proves_nothing_is_refused(
    copy: Path, plain_built: BuiltBundle, sources: list[str], change: Callable[[dict[str, Any]], object], told: str
) -> None:
    seal(copy / "torchscript-float32", change)
    status, _, complained = run_command(
        "verify", plain_built.path, *sources, "--engine", "torchscript-float32", "--targets", copy
    )
    assert status == 1
    assert told in complained


def test_target_of_other_weights_misses_its_tolerance(copy: Path, plain_built: BuiltBundle, sources: list[str]) -> None:
    """Sealed anew, so that only the comparison can tell."""
    folder = copy / "onnx-float32"
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[3::4] = bytes(byte ^ 0x80 for byte in weights[3::4])
    (folder / "weights.bin").write_bytes(weights)
    seal(folder)
    status, _, complained = run_command(
        "verify", plain_built.path, *sources, "--engine", "onnx-float32", "--targets", copy, "--samples", 2
    )
    assert status == 1
    assert "miss a tolerance" in complained
    assert "MISSED" in complained


def test_altered_file_is_found_before_it_runs(copy: Path, plain_built: BuiltBundle, sources: list[str]) -> None:
    path = copy / "onnx-float32" / MODEL_FILE
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    status, _, complained = run_command(
        "verify", plain_built.path, *sources, "--engine", "onnx-float32", "--targets", copy
    )
    assert status == 1
    assert "is not the file that was written" in complained


def test_target_of_another_bundle_is_refused(targets: Path, unusual_built: BuiltBundle, tmp_path: Path) -> None:
    status, _, complained = run_command(
        "verify",
        unusual_built.path,
        *save_sources(unusual_built, tmp_path),
        "--engine",
        "onnx-float32",
        "--targets",
        targets,
    )
    assert status == 1
    assert "belongs to bundle" in complained


def test_unknown_engine_is_refused_with_those_that_are_there(
    targets: Path, plain_built: BuiltBundle, sources: list[str]
) -> None:
    status, _, complained = run_command(
        "verify", plain_built.path, *sources, "--engine", "onnx-int8", "--targets", targets
    )
    assert status == 1
    assert "'onnx-float16'" in complained


def test_target_that_is_there_is_kept(targets: Path, plain_built: BuiltBundle, sources: list[str]) -> None:
    before = (targets / "torchscript-float32" / RECORD_NAME).read_bytes()
    status, _, complained = run_command(
        "export", plain_built.path, *sources, "--target", "torchscript", "--out", targets
    )
    assert status == 1
    assert "--overwrite" in complained
    assert (targets / "torchscript-float32" / RECORD_NAME).read_bytes() == before


def test_place_that_is_taken_is_refused_before_other_targets_are_written(
    copy: Path, plain_built: BuiltBundle, sources: list[str]
) -> None:
    shutil.rmtree(copy / "onnx-float32")
    status, _, complained = run_command(
        "export", plain_built.path, *sources, "--target", "onnx", "torchscript", "--out", copy
    )
    assert status == 1
    assert "torchscript-float32 exists" in complained
    assert not (copy / "onnx-float32").exists()


@pytest.mark.parametrize("engine", ["all", "onnx-float32"])
def test_folder_without_targets_is_no_success(
    plain_built: BuiltBundle, sources: list[str], tmp_path: Path, engine: str
) -> None:
    status, _, complained = run_command(
        "verify", plain_built.path, *sources, "--engine", engine, "--targets", tmp_path / "typo"
    )
    assert status == 1
    assert "typo, expected a folder that `labelmint-export export` wrote" in complained


@pytest.mark.parametrize("option", ["targets", "json"])
def test_options_of_engines_without_an_engine_are_refused(
    plain_built: BuiltBundle, sources: list[str], tmp_path: Path, option: str
) -> None:
    status, _, complained = run_command("verify", plain_built.path, *sources, f"--{option}", tmp_path / "x")
    assert status == 1
    assert f"{option} is given and engine is not" in complained


def test_other_mean_w_than_the_bundles_is_refused(plain_built: BuiltBundle, tmp_path: Path) -> None:
    """As where the mean latent of DatasetGAN's StyleGAN1, which lies in a file of its own, was forgotten."""
    generator = deepcopy(plain_built.generator)
    generator.mapping.w_avg.add_(0.01)
    other = save_sources(replace(plain_built, generator=generator), tmp_path)
    for command in (["export", "--target", "torchscript", "--out", tmp_path / "out"], ["verify", "--engine", "bundle"]):
        status, _, complained = run_command(command[0], plain_built.path, *other, *command[1:])
        assert status == 1
        assert "mean_latent is not given, and the generator's mean w is not the bundle's" in complained
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["torchscript", "program"])
def test_full_disk_is_reported_and_nothing_is_left(
    plain_built: BuiltBundle, sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Given a path, torch ends the process instead, from the destructor of its archive."""

    def fill_up(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    status, _, complained = run_command(
        "export", plain_built.path, *sources, "--target", target, "--out", tmp_path / "out"
    )
    assert status == 1
    assert "No space left on device" in complained
    assert not list((tmp_path / "out").iterdir())


def test_failed_export_leaves_nothing(plain_built: BuiltBundle, sources: list[str], tmp_path: Path) -> None:
    status, _, complained = run_command(
        "export", plain_built.path, *sources, "--target", "tensorrt", "--out", tmp_path / "out"
    )
    if status == 0:
        pytest.skip("native TensorRT and a GPU are here")
    assert "TensorRT" in complained
    assert not list((tmp_path / "out").iterdir())


def test_precision_that_a_target_has_not_is_refused_before_anything_is_written(
    plain_built: BuiltBundle, sources: list[str], tmp_path: Path
) -> None:
    kinds = ["--target", "onnx", "triton", "--precision", "bfloat16"]
    status, _, complained = run_command("export", plain_built.path, *sources, *kinds, "--out", tmp_path / "out")
    assert status == 1
    assert "precision of target triton is bfloat16, expected one of ['float32', 'float16']" in complained
    assert not (tmp_path / "out").exists()


def test_profile_out_of_order_is_refused(plain_built: BuiltBundle, sources: list[str], tmp_path: Path) -> None:
    kinds = ["--target", "onnx", "--profile", 4, 2, 8, "--out", tmp_path / "out"]
    status, _, complained = run_command("export", plain_built.path, *sources, *kinds)
    assert status == 1
    assert "profile is 4 2 8" in complained
