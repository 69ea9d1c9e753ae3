"""Building: a bundle appears whole or not at all."""

from __future__ import annotations

import dataclasses
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from labelmint.bundle import open_bundle
from labelmint.errors import ManifestError
from labelmint.v1 import bundle_pb2
from labelmint_export.bundle import build, parity
from labelmint_export.bundle.build import build_bundle
from labelmint_export.bundle.graphs import CropWindow
from labelmint_export.bundle.quantiles import calibrated_psis
from labelmint_export.bundle.runtime import GraphRunner, versions_of
from labelmint_export.bundle.settings import check_parts
from labelmint_export.errors import BuildError, OutputError
from labelmint_export.generator import Generator, TapSpec
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.targets.deployed import make_target_model
from labelmint_export.targets.torch_engine import run_with_arrays
from tests.export.built_bundle import BuiltBundle, Feeds
from tests.export.tiny_parts import make_generator, make_interpreter, make_provenance, make_schema, make_settings


def build_again(built: BuiltBundle, out: Path, *, overwrite: bool = False, **changes: Any) -> None:
    """Build with the same parts and other settings."""
    settings = dataclasses.replace(built.settings, **changes)
    build_bundle(
        built.generator, built.interpreter, make_schema(), settings, make_provenance(), out, overwrite=overwrite
    )


@pytest.fixture
def exported(plain_built: BuiltBundle, monkeypatch: pytest.MonkeyPatch) -> BuiltBundle:
    """Graphs that were exported before are copied instead of exported anew, which would take seconds."""

    def copy_graphs(
        generator: Generator, interpreter: Interpreter, settings: object, folder: Path
    ) -> list[bundle_pb2.Table]:
        for name in ("mapping.onnx", "synthesis.onnx", "interpreter.onnx", "model.onnx", "weights.bin"):
            shutil.copy(plain_built.path / name, folder)
        return list(plain_built.manifest.interpreter_tables)

    monkeypatch.setattr(build, "_write_graph_files", copy_graphs)
    return plain_built


def test_building_again_gives_the_same_bundle_in_the_place_of_the_old_one(
    plain_built: BuiltBundle, tmp_path: Path
) -> None:
    out = tmp_path / "tiny"
    shutil.copytree(plain_built.path, out)
    (out / "left over").write_text("of the old bundle")
    torch.manual_seed(1234)
    build_again(plain_built, out, overwrite=True)
    assert open_bundle(out).digest == open_bundle(plain_built.path).digest
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in plain_built.path.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_existing_folder_is_refused_and_left_alone(exported: BuiltBundle, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    shutil.copytree(exported.path, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(BuildError, match="exists; give another folder, or --overwrite") as caught:
        build_again(exported, out, version="2")
    assert caught.value.field == "out"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_overwriting_replaces_the_whole_bundle(exported: BuiltBundle, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    build_again(exported, out)
    (out / "left over").write_text("of the old bundle")
    build_again(exported, out, overwrite=True, version="2")
    assert open_bundle(out).manifest.version == "2"
    assert not (out / "left over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("content", ["folder", "file"])
def test_what_is_no_bundle_is_never_overwritten(exported: BuiltBundle, tmp_path: Path, content: str) -> None:
    """A mistyped --out must not cost a folder of something else."""
    out = tmp_path / "thesis"
    if content == "folder":
        out.mkdir()
        (out / "chapter.txt").write_text("years of work")
    else:
        out.write_text("years of work")
    with pytest.raises(
        (BuildError, OutputError), match=r"exists and is no bundle|is a file, expected a folder"
    ) as caught:
        build_again(exported, out, overwrite=True)
    assert caught.value.field == "out"
    assert (out / "chapter.txt" if content == "folder" else out).read_text() == "years of work"


@pytest.mark.parametrize("existing", [False, True])
def test_missed_parity_leaves_nothing_behind(
    exported: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    out = tmp_path / "tiny"
    if existing:
        shutil.copytree(exported.path, out)
    name = "onnx_vs_reference.uncertainty_max_error"
    monkeypatch.setitem(parity.TOLERANCES, name, (1e-12, "max"))
    with pytest.raises(BuildError, match=f"{name} is .* tolerance 1e-12") as caught:
        build_again(exported, out, overwrite=True)
    assert caught.value.field == "parity"
    if existing:
        assert open_bundle(out).digest == open_bundle(exported.path).digest
    assert [path.name for path in tmp_path.iterdir()] == (["tiny"] if existing else [])


def test_graphs_of_another_interpreter_miss_parity(exported: BuiltBundle, tmp_path: Path) -> None:
    """The comparison itself notices, not only its tolerance: the graphs were made from other weights."""
    other = make_interpreter(exported.generator.tap_specs, 16, seed=99)
    with pytest.raises(BuildError, match=r"onnx_vs_reference\.label_agreement is"):
        build_bundle(exported.generator, other, make_schema(), exported.settings, make_provenance(), tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_graphs_of_another_generator_miss_parity_before_the_calibration(
    exported: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "calibrate_scores", lambda *_: pytest.fail("hours for nothing"))
    with pytest.raises(BuildError, match=r"onnx_vs_reference\.image_max_error_levels is"):
        build_bundle(
            make_generator(seed=5),
            exported.interpreter,
            make_schema(),
            exported.settings,
            make_provenance(),
            tmp_path / "tiny",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threshold", [50.0, -50.0])
def test_place_of_a_keypoint_that_nobody_sees_is_not_compared(plain_built: BuiltBundle, threshold: float) -> None:
    generator = plain_built.generator
    interpreter = make_interpreter(generator.tap_specs[:1], 16, threshold=threshold)
    module = make_target_model(generator, interpreter, plain_built.manifest, "float32")
    run = run_with_arrays(module.module, module, "cpu")

    def run_beside(feeds: Feeds) -> dict[str, Any]:  # Any: arrays of several dtypes
        outputs = run(feeds)
        return {**outputs, "keypoints": outputs["keypoints"] + np.array([1, 0, 0, 0], np.float32)}

    psis = calibrated_psis(plain_built.manifest)
    measured = parity.measure_parity(generator, interpreter, run_beside, plain_built.manifest, psis, 16)
    checks = {c.name: c for c in measured.checks}
    name = "onnx_vs_reference.keypoints_within_0_05_px"
    assert name not in checks if threshold > 0 else checks[name].measured == 0


def test_versions_are_found_where_onnxruntime_is_the_distribution_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", find)
    assert versions_of(("torch", "onnxruntime")) == {"torch": "1.2", "onnxruntime": onnxruntime.__version__}


def test_interruption_leaves_nothing_behind(
    exported: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "calibrate_scores", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_again(exported, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_failing_last_step_brings_the_old_bundle_back(
    exported: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tiny"
    shutil.copytree(exported.path, out)
    rename = Path.replace

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if ".building-" in self.name:
            raise OSError("device is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new_one)
    with pytest.raises(OSError, match="device is gone"):
        # write_manifest renames its file too, but that one is called otherwise.
        build_again(exported, out, overwrite=True, version="2")
    assert open_bundle(out).manifest.version == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_graph_that_does_not_load_stops_the_build(
    exported: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_graphs = build._write_graph_files

    def cut_off(*arguments: Any) -> list[bundle_pb2.Table]:
        tables = copy_graphs(*arguments)
        model = arguments[-1] / "model.onnx"
        model.write_bytes(model.read_bytes()[:100])
        return tables

    monkeypatch.setattr(build, "_write_graph_files", cut_off)
    with pytest.raises(BuildError, match=r"onnxruntime does not load model\.onnx") as caught:
        build_again(exported, tmp_path / "tiny")
    assert caught.value.field == "graphs"
    assert list(tmp_path.iterdir()) == []


def test_non_finite_sample_stops_the_build(
    exported: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = GraphRunner.run

    def spoil(self: GraphRunner, feeds: Any) -> dict[str, np.ndarray[Any, Any]]:
        return run(self, feeds | {"z": feeds["z"] * np.float32(np.inf)})

    monkeypatch.setattr(GraphRunner, "run", spoil)
    with pytest.raises(BuildError, match=r"at psi 0\.7 is not finite") as caught:
        build_again(exported, tmp_path / "tiny")
    assert caught.value.field == "finite"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_licence", " "),
        ("data_licence", ""),
        ("attribution", ""),
        ("num_calibration_samples", 0),
        ("num_parity_samples", 0),
        ("batch_size", 0),
        ("batch_size", 10**12),
        ("truncation_cutoff", -1),
        ("truncation_cutoff", 99),
        ("psi_grid", (0.5, 0.5)),
        ("psi_grid", ()),
        ("psi_grid", (0.5, 1.5)),
        ("default_psi", -0.1),
        ("default_psi", float("nan")),
        ("noise_mode", "random"),
        ("class_distribution", (0.5, 0.5)),
        ("crop", CropWindow(top=-1, left=0, height=4, width=4)),
        ("crop", CropWindow(top=0, left=10, height=4, width=8)),
        ("crop", CropWindow(top=0, left=0, height=0, width=8)),
    ],
)
def test_setting_out_of_range_is_named(plain_built: BuiltBundle, tmp_path: Path, field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}  # Any: fields of every type
    with pytest.raises(BuildError, match=field) as caught:
        build_again(plain_built, tmp_path / "tiny", **changes)
    assert caught.value.field == field
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (1.5, 0.0, -0.5), (0.5, 0.5, float("nan"))])
def test_class_distribution_that_is_none_is_refused_before_anything_is_exported(shares: tuple[float, ...]) -> None:
    generator = make_generator(c_dim=3)
    parts = generator, make_interpreter(generator.tap_specs, 16), make_schema()
    check_parts(*parts, make_settings(class_distribution=(0.5, 0.2, 0.3)))
    with pytest.raises(BuildError, match="expected probabilities, whose sum is 1") as caught:
        check_parts(*parts, make_settings(class_distribution=shares))
    assert caught.value.field == "class_distribution"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "No Spaces"),
        ("name", ""),
        ("version", "one\ntwo"),
        ("url", "ftp://example.org"),
        ("vote_rule", "loudest"),
    ],
)
def test_text_that_no_manifest_may_hold_is_named_before_the_work_begins(
    plain_built: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: object
) -> None:
    def work(*arguments: object) -> None:
        raise AssertionError("the export began")

    monkeypatch.setattr(build, "_write_graph_files", work)
    changes: dict[str, Any] = {field: value}  # Any: fields of every type
    with pytest.raises(ManifestError, match=field) as caught:
        build_again(plain_built, tmp_path / "tiny", **changes)
    assert caught.value.field.endswith(field)
    assert list(tmp_path.iterdir()) == []


def test_crop_between_label_pixels_is_refused(tmp_path: Path) -> None:
    generator = make_generator()
    interpreter = make_interpreter(generator.tap_specs[:3], 8)
    settings = make_settings(crop=CropWindow(top=1, left=0, height=8, width=8))
    with pytest.raises(BuildError, match="does not fall on whole label pixels") as caught:
        build_bundle(generator, interpreter, make_schema(), settings, make_provenance(), tmp_path / "tiny")
    assert caught.value.field == "crop"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tap", [TapSpec("b64.conv1", 6, 16), TapSpec("b16.conv1", 9, 16)])
def test_interpreter_of_another_generator_is_refused(generator: Generator, tmp_path: Path, tap: TapSpec) -> None:
    interpreter = make_interpreter((tap,), 16)
    with pytest.raises(BuildError, match="the interpreter looks at") as caught:
        build_bundle(generator, interpreter, make_schema(), make_settings(), make_provenance(), tmp_path / "tiny")
    assert caught.value.field == "taps"


def test_names_of_other_numbers_are_refused(generator: Generator, interpreter: Interpreter, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="4 classes and 3 keypoints, the names are 4 and 2") as caught:
        build_bundle(generator, interpreter, make_schema(2), make_settings(), make_provenance(), tmp_path / "tiny")
    assert caught.value.field == "classes"
