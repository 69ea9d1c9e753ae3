"""What is inside a built bundle: graphs, weights and manifest, against the parts that it was built from."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from labelmint.scores import image_score
from labelmint_export.bundle.graphs import CropWindow, InterpreterGraph
from labelmint_export.bundle.onnx_graphs import export_module
from labelmint_export.generator import TapSpec
from tests.export.built_bundle import BuiltBundle, external_place
from tests.export.plain_interpreter import plain_labels
from tests.export.tiny_parts import (
    CLASS_NAMES,
    KEYPOINT_NAMES,
    make_interpreter,
    make_schema,
    make_taps,
    stack_taps,
)

GRAPHS = ("mapping", "synthesis", "interpreter", "model")
DTYPES = {"image": np.uint8, "label": np.uint8, "uncertainty_map": np.float16, "keypoints": np.float32, "finite": bool}


@pytest.mark.parametrize("psi", [0.3, 1.0])
def test_model_computes_what_the_plain_algorithms_compute(built: BuiltBundle, psi: float) -> None:
    feeds = built.feeds(seed=11, indices=range(6), psi=psi)
    got, expected = built.run("model", feeds), built.plain_outputs(feeds)
    assert got.keys() == expected.keys()
    assert {name: got[name].dtype for name in DTYPES} == DTYPES
    assert {name: array.shape for name, array in got.items()} == {n: array.shape for n, array in expected.items()}
    levels = np.abs(got["image"].astype(int) - expected["image"].astype(int))
    assert levels.max() <= 1
    assert (levels == 0).mean() > 0.99
    assert expected["image"].std() > 10, "the pictures are flat"
    assert (got["label"] == expected["label"]).mean() >= 0.9995
    assert len(np.unique(expected["label"])) > 2, "the labels are flat"
    np.testing.assert_allclose(got["uncertainty_map"], expected["uncertainty_map"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got["keypoints"], expected["keypoints"], rtol=0, atol=5e-3)
    assert got["finite"].all()


def test_cropped_frame_hides_some_keypoints(unusual_built: BuiltBundle) -> None:
    """Or the case above would not show that they are hidden."""
    keypoints = np.concatenate(
        [unusual_built.run("model", unusual_built.feeds(5, range(30), psi))["keypoints"] for psi in (0.5, 1.0)]
    )
    x, y, score, visible = keypoints.reshape(-1, 4).T
    inside = (x >= 0) & (x <= 13) & (y >= 0) & (y <= 8)
    assert not visible[~inside].any()
    assert (score[~inside] >= 0.1).any()
    assert visible[inside].any()


def test_graphs_in_turn_equal_the_model(built: BuiltBundle) -> None:
    feeds = built.feeds(seed=3, indices=range(4), psi=0.7)
    whole = built.run("model", feeds)
    ws = built.run("mapping", feeds)["ws"]
    assert ws.shape == (4, 6, 10)
    painted = built.run("synthesis", {"ws": ws})
    taps = {name: array for name, array in painted.items() if name.startswith("tap_r")}
    labelled = built.run("interpreter", taps)
    np.testing.assert_array_equal(labelled.pop("finite") & painted["finite"], whole["finite"])
    assert np.abs(painted["image"].astype(int) - whole["image"].astype(int)).max() <= 1
    assert (labelled["label"] == whole["label"]).mean() > 0.999
    np.testing.assert_allclose(labelled["uncertainty_map"], whole["uncertainty_map"], rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(labelled["keypoints"], whole["keypoints"], rtol=0, atol=1e-3)
    shapes = {name: array.shape[1:] for name, array in taps.items()}
    expected: dict[str, tuple[int, ...]] = {}
    for tap in built.manifest.taps:
        name = f"tap_r{tap.resolution}"
        expected[name] = (expected.get(name, (0,))[0] + tap.channels, tap.resolution, tap.resolution)
    assert shapes == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_graph_takes_any_batch(plain_built: BuiltBundle, count: int) -> None:
    feeds = plain_built.feeds(seed=1, indices=range(count), psi=1.0)
    assert all(len(array) == count for array in plain_built.run("model", feeds).values())
    painted = plain_built.run("synthesis", plain_built.run("mapping", feeds))
    assert all(len(array) == count for array in painted.values())
    for name in ("image", "finite"):
        del painted[name]
    assert all(len(array) == count for array in plain_built.run("interpreter", painted).values())


def test_non_finite_latents_are_reported_by_their_row(plain_built: BuiltBundle) -> None:
    feeds = plain_built.feeds(seed=1, indices=range(3), psi=1.0)
    feeds["z"][1, 0] = np.nan
    assert plain_built.run("model", feeds)["finite"].tolist() == [True, False, True]
    ws = plain_built.run("mapping", plain_built.feeds(1, range(3), 1.0))["ws"]
    ws[2, 3, 1] = np.inf
    assert plain_built.run("synthesis", {"ws": ws})["finite"].tolist() == [True, True, False]


def test_zero_latent_gives_a_picture(built: BuiltBundle) -> None:
    """The normalisation of z must not divide by zero: exporters like to drop small constants."""
    feeds = built.feeds(seed=1, indices=range(2), psi=1.0)
    feeds["z"][0] = 0.0
    assert built.run("model", feeds)["finite"].all()
    assert np.isfinite(built.run("mapping", feeds)["ws"]).all()


def test_inputs_of_the_model_are_those_of_the_design(built: BuiltBundle) -> None:
    inputs = {value.name: value.shape for value in built.session("model").get_inputs()}
    expected = {"z": ["N", 8], "truncation_psi": ["N"]}
    if built.manifest.backbone.c_dim:
        expected["c"] = ["N", 3]
    assert inputs == expected


def test_interpreter_whose_taps_have_one_resolution_is_exported() -> None:
    taps_of = (TapSpec("a", 4, 8), TapSpec("b", 3, 8))
    interpreter, taps = make_interpreter(taps_of, 16), make_taps(taps_of, 3)
    stacks = {name: stack.float() for name, stack in stack_taps(taps, taps_of).items()}
    graph = InterpreterGraph(interpreter, "majority", 16, CropWindow(top=0, left=0, height=16, width=16))
    examples = tuple(stack[:2] for stack in stacks.values())
    model = export_module(graph, examples, graph.input_names, graph.output_names)
    assert [value.name for value in model.graph.input] == ["tap_r8"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    label = session.run(["label"], {name: stack.numpy() for name, stack in stacks.items()})[0]
    expected = plain_labels(interpreter, taps, "majority").label.numpy()
    assert (label == expected).mean() >= 0.9995
    assert len(np.unique(expected)) > 2, "the labels are flat"


# --- weights ----------------------------------------------------------------------------------------------------------


def test_every_large_weight_is_stored_once(built: BuiltBundle) -> None:
    unique: dict[bytes, int] = {}
    places: set[tuple[str, int, int]] = set()
    num_external = 0
    for name in GRAPHS:
        path = built.path / f"{name}.onnx"
        graph = onnx.load(path, load_external_data=False).graph
        for tensor in graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                num_external += 1
                places.add(external_place(tensor))
            else:
                assert numpy_helper.to_array(tensor).nbytes < 1024, f"{tensor.name} lies inside {name}"
        for node in graph.node:
            assert all(attribute.t.ByteSize() < 1024 for attribute in node.attribute), f"{node.name} hides a weight"
        for tensor in onnx.load(path).graph.initializer:
            data = numpy_helper.to_array(tensor).tobytes()
            if len(data) >= 1024:
                unique[data] = len(data)
    weights = (built.path / "weights.bin").read_bytes()
    for table in built.manifest.interpreter_tables:
        length = 4 * math.prod(table.shape)
        places.add((table.path, table.offset, length))
        unique[weights[table.offset : table.offset + length]] = length
    assert places
    assert num_external > len(places), "nothing is shared"
    assert len(places) == len(unique)
    assert {location for location, _, _ in places} == {"weights.bin"}
    assert all(offset % 4096 == 0 for _, offset, _ in places)
    size = (built.path / "weights.bin").stat().st_size
    assert sum(unique.values()) <= size < sum(unique.values()) + 4096 * len(unique)


def test_graphs_carry_nothing_of_the_machine_they_were_made_on(built: BuiltBundle) -> None:
    for name in GRAPHS:
        content = (built.path / f"{name}.onnx").read_bytes()
        for trace in (b"site-packages", b"/work", b"/home", b".py"):
            assert trace not in content, name


# --- manifest ---------------------------------------------------------------------------------------------------------


def test_manifest_describes_the_plain_bundle(plain_built: BuiltBundle) -> None:
    manifest = plain_built.manifest
    backbone = manifest.backbone
    assert (backbone.resolution, backbone.image_channels, backbone.c_dim) == (16, 3, 0)
    assert (backbone.z_dim, backbone.w_dim, backbone.num_ws) == (8, 10, 6)
    assert backbone.num_parameters == sum(p.numel() for p in plain_built.generator.parameters())
    frame = manifest.frame
    assert (frame.image_height, frame.image_width, frame.crop_top, frame.crop_left) == (16, 16, 0, 0)
    assert (frame.label_height, frame.label_width) == (16, 16)
    assert [(t.name, t.channels, t.resolution) for t in manifest.taps] == [
        (t.name, t.channels, t.resolution) for t in plain_built.generator.tap_specs
    ]
    assert (manifest.segmentation.num_members, list(manifest.segmentation.hidden_widths)) == (5, [12, 6])
    assert (manifest.keypoint_regression.num_members, list(manifest.keypoint_regression.hidden_widths)) == (2, [7, 5])
    schema = make_schema()
    assert [c.name for c in manifest.classes] == list(CLASS_NAMES)
    assert tuple((c.red, c.green, c.blue) for c in manifest.classes) == schema.palette
    points = manifest.keypoints
    assert list(points.names) == list(KEYPOINT_NAMES)
    assert [(p.first, p.second) for p in points.skeleton] == [(0, 1)]
    assert [(p.first, p.second) for p in points.left_right_pairs] == [(0, 1)]
    assert points.peak_rule == "quadratic_3x3"
    assert list(points.visibility_thresholds) == pytest.approx([0.4] * 3)
    assert points.sigma_pixels == 2.0
    assert (manifest.vote_rule, manifest.noise_mode, manifest.upsampling) == ("majority", "const", "bilinear")
    assert (manifest.truncation.default_psi, manifest.truncation.cutoff) == (1.0, 0)
    assert manifest.runtime.batch_size == 4
    assert manifest.licence.attribution == "Nobody; random numbers"
    assert {"torch", "onnxruntime"} <= set(manifest.provenance.versions)
    assert {file.path for file in manifest.files} == {*(f"{name}.onnx" for name in GRAPHS), "weights.bin"}
    assert {path.name for path in plain_built.path.iterdir()} == {file.path for file in manifest.files} | {
        "manifest.json"
    }


def test_manifest_describes_the_unusual_bundle(unusual_built: BuiltBundle) -> None:
    manifest = unusual_built.manifest
    assert (manifest.backbone.image_channels, manifest.backbone.c_dim) == (1, 3)
    frame = manifest.frame
    assert (frame.image_height, frame.image_width, frame.crop_top, frame.crop_left) == (8, 13, 3, 1)
    assert (frame.label_height, frame.label_width) == (16, 26)
    assert [t.name for t in manifest.taps] == ["b16.conv0", "b4.conv1", "b16.conv1", "b8.conv0"]
    assert (manifest.vote_rule, manifest.noise_mode) == ("mean_probability", "none")
    assert manifest.truncation.default_psi == pytest.approx(0.8)
    assert manifest.truncation.cutoff == 2
    assert list(manifest.class_distribution) == [0.5, 0.2, 0.3]
    assert manifest.runtime.batch_size == 3


def test_quantiles_are_those_of_the_scores_of_the_calibration_addresses(built: BuiltBundle) -> None:
    tables = built.manifest.score_quantiles
    classes: list[int | None] = [*range(built.manifest.backbone.c_dim)] or [None]
    wanted = [(psi, c) for psi in built.settings.psi_grid for c in classes]
    assert [t.truncation_psi for t in tables] == pytest.approx([psi for psi, _ in wanted])
    assert [t.class_index if t.HasField("class_index") else None for t in tables] == [c for _, c in wanted]
    for table, (psi, class_index) in zip(tables, wanted, strict=True):
        maps = built.run("model", built.feeds(2**64 - 1, range(16), psi, class_index))["uncertainty_map"]
        scores = image_score(maps)
        assert table.num_samples == 16
        assert len(table.scores) == 101
        np.testing.assert_allclose(table.scores, np.quantile(scores, np.linspace(0, 1, 101)), rtol=2e-3)
        assert list(table.scores) == sorted(table.scores)
        assert scores.max() > scores.min() > 0


def test_parity_is_recorded_and_within_its_tolerances(built: BuiltBundle) -> None:
    checks = {check.name: check for check in built.manifest.parity.checks}
    assert checks.keys() == {
        "fused_vs_separate.label_agreement",
        "fused_vs_separate.uncertainty_max_error",
        "onnx_vs_reference.image_max_error_levels",
        "onnx_vs_reference.image_equal_share",
        "onnx_vs_reference.label_agreement",
        "onnx_vs_reference.uncertainty_max_error",
        "onnx_vs_reference.keypoints_within_0_05_px",
    }
    assert built.manifest.parity.num_samples == 2
    for check in checks.values():
        within = check.measured <= check.tolerance if check.bound == "max" else check.measured >= check.tolerance
        assert within, check.name
    assert checks["fused_vs_separate.uncertainty_max_error"].measured > 0
    assert checks["onnx_vs_reference.uncertainty_max_error"].measured > 0
