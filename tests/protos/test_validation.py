from collections.abc import Callable
from pathlib import Path

import pytest

from labelmint.errors import ManifestError
from labelmint.v1 import bundle_pb2
from labelmint.validation import validate_manifest
from tests.protos.manifests import manifest_with_tables, valid_manifest, write_bundle

Manifest = bundle_pb2.Manifest
NAN, INFINITY = float("nan"), float("inf")


def setting(path: str, value: object) -> Callable[[Manifest], None]:
    """Return a change that sets the field at a path such as "frame.crop_top" or "taps.0.channels"."""

    def change(manifest: Manifest) -> None:
        *parents, name = path.split(".")
        target: object = manifest
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else getattr(target, parent)  # type: ignore[index]  # repeated
        if name.isdigit():
            target[int(name)] = value  # type: ignore[index]  # a repeated field
        else:
            setattr(target, name, value)

    return change


def clearing(path: str) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        *parents, name = path.split(".")
        target: object = manifest
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else getattr(target, parent)  # type: ignore[index]  # repeated
        target.ClearField(name)  # type: ignore[attr-defined]  # a message

    return change


def without_keypoint_names(manifest: Manifest) -> None:
    manifest.keypoints.ClearField("names")


def unconditional_with_distribution(manifest: Manifest) -> None:
    manifest.backbone.c_dim = 0


def conditional_without_class(manifest: Manifest) -> None:
    manifest.score_quantiles[0].ClearField("class_index")


def many(field: str, number: int) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        entries = getattr(manifest, field)
        for position in range(len(entries), number):
            entries.add(name=f"entry {position}")

    return change


def one_class(manifest: Manifest) -> None:
    del manifest.classes[1:]


def repeated_file(manifest: Manifest) -> None:
    # The same file where upper and lower case are one.
    manifest.files.add(path="MODEL.onnx", sha256="0" * 64, num_bytes=1)


def listed_manifest(manifest: Manifest) -> None:
    manifest.files.add(path="manifest.json", sha256="0" * 64, num_bytes=1)


def mirrored_twice(manifest: Manifest) -> None:
    manifest.keypoints.left_right_pairs.add(first=1, second=2)


def unknown_runtime_option(manifest: Manifest) -> None:
    manifest.runtime.onnxruntime.config_entries["session.model_external_initializers_file_folder_path"] = "/etc"


CASES: list[tuple[str, Callable[[Manifest], None]]] = [
    ("schema_version", setting("schema_version", 0)),
    ("schema_version", setting("schema_version", 2)),
    *(("name", setting("name", name)) for name in ("", "Upper", "-dash", "a/b", "a" * 65, "ä", "a\n")),
    *(("version", setting("version", version)) for version in ("", "1 0", "a" * 65)),
    *(("description", setting("description", text)) for text in ("x" * 4097, "escape \x1b[2J")),
    *(("digest", setting("digest", digest)) for digest in ("0" * 63, "G" * 64, "A" * 64)),
    ("backbone.family", clearing("backbone")),
    ("backbone.family", setting("backbone.family", "stylegan9")),
    ("backbone.architecture", setting("backbone.architecture", "")),
    *(("backbone.resolution", setting("backbone.resolution", side)) for side in (0, 2, 24, 2**15)),
    *(("backbone.image_channels", setting("backbone.image_channels", number)) for number in (0, 2, 4)),
    *(("backbone.z_dim", setting("backbone.z_dim", number)) for number in (0, 2**17)),
    ("backbone.c_dim", setting("backbone.c_dim", 2**17)),
    ("backbone.w_dim", setting("backbone.w_dim", 0)),
    ("backbone.num_ws", setting("backbone.num_ws", 0)),
    ("backbone.num_parameters", setting("backbone.num_parameters", 0)),
    ("frame.image_height", clearing("frame")),
    ("frame.image_height", setting("frame.image_height", 17)),
    ("frame.image_width", setting("frame.image_width", 0)),
    ("frame.crop_top", setting("frame.crop_top", 5)),
    ("frame.crop_left", setting("frame.crop_left", 1)),
    ("frame.label_height", setting("frame.label_height", 0)),
    ("frame.label_width", setting("frame.label_width", 2**20)),
    ("taps", clearing("taps")),
    ("taps", setting("taps.1.name", "b8.conv1")),
    ("taps[0]", setting("taps.0.name", " ")),
    ("taps[0].channels", setting("taps.0.channels", 0)),
    ("taps[1].resolution", setting("taps.1.resolution", 0)),
    ("upsampling", setting("upsampling", "nearest")),
    ("segmentation.num_members", clearing("segmentation")),
    ("segmentation.hidden_widths", clearing("segmentation.hidden_widths")),
    ("segmentation.hidden_widths[1]", setting("segmentation.hidden_widths.1", 0)),
    ("keypoint_regression", clearing("keypoint_regression")),
    ("keypoint_regression", without_keypoint_names),
    ("keypoint_regression.num_members", setting("keypoint_regression.num_members", 5000)),
    ("classes", clearing("classes")),
    ("classes", one_class),
    ("classes", many("classes", 256)),
    ("classes", setting("classes.1.name", "background")),
    ("classes[1]", setting("classes.1.name", "")),
    ("classes[0].red", setting("classes.0.red", 256)),
    ("classes[0].green", setting("classes.0.green", 256)),
    ("classes[0].blue", setting("classes.0.blue", 256)),
    ("ignore_label", setting("ignore_label", 0)),
    ("keypoints.names", setting("keypoints.names.1", "mouth")),
    ("keypoints.names[0]", setting("keypoints.names.0", "")),
    ("keypoints.skeleton[0].first", setting("keypoints.skeleton.0.first", 3)),
    ("keypoints.skeleton[1].second", setting("keypoints.skeleton.1.second", 99)),
    ("keypoints.skeleton[0]", setting("keypoints.skeleton.0.second", 0)),
    ("keypoints.left_right_pairs", mirrored_twice),
    ("keypoints.visibility_thresholds", clearing("keypoints.visibility_thresholds")),
    ("keypoints.visibility_thresholds[2]", setting("keypoints.visibility_thresholds.2", NAN)),
    ("keypoints.peak_rule", setting("keypoints.peak_rule", "")),
    *(("keypoints.sigma_pixels", setting("keypoints.sigma_pixels", sigma)) for sigma in (0.0, -1.0, INFINITY)),
    ("vote_rule", setting("vote_rule", "loudest")),
    ("uncertainty_rule", setting("uncertainty_rule", "")),
    ("noise_mode", setting("noise_mode", "random")),
    ("precision", setting("precision", "int8")),
    ("truncation.max_psi", clearing("truncation")),
    *(("truncation.max_psi", setting("truncation.max_psi", psi)) for psi in (NAN, 3.0, -1.0)),
    *(("truncation.default_psi", setting("truncation.default_psi", psi)) for psi in (NAN, 1.5, -0.1)),
    ("truncation.cutoff", setting("truncation.cutoff", 7)),
    ("class_distribution", clearing("class_distribution")),
    ("class_distribution", unconditional_with_distribution),
    ("class_distribution", setting("class_distribution.0", 0.5)),
    ("class_distribution[1]", setting("class_distribution.1", NAN)),
    ("score_quantiles", setting("score_quantiles.1.class_index", 0)),
    ("score_quantiles[0].truncation_psi", setting("score_quantiles.0.truncation_psi", 1.5)),
    ("score_quantiles[1].class_index", setting("score_quantiles.1.class_index", 2)),
    ("score_quantiles[0].class_index", conditional_without_class),
    ("score_quantiles[0].scores", clearing("score_quantiles.0.scores")),
    ("score_quantiles[0].scores[2]", setting("score_quantiles.0.scores.2", 0.05)),
    ("score_quantiles[0].scores[2]", setting("score_quantiles.0.scores.2", INFINITY)),
    ("score_quantiles[1].scores[0]", setting("score_quantiles.1.scores.0", NAN)),
    ("score_quantiles[1].num_samples", setting("score_quantiles.1.num_samples", 0)),
    ("parity.checks", setting("parity.checks.1.name", "onnx_vs_torch.image_error")),
    ("parity.checks[0].measured", setting("parity.checks.0.measured", 1.5)),
    ("parity.checks[1].measured", setting("parity.checks.1.measured", 0.9)),
    ("parity.checks[0].measured", setting("parity.checks.0.measured", NAN)),
    ("parity.checks[0].tolerance", setting("parity.checks.0.tolerance", INFINITY)),
    ("parity.checks[1].bound", setting("parity.checks.1.bound", "about")),
    ("parity.num_samples", setting("parity.num_samples", 0)),
    ("runtime.batch_size", clearing("runtime")),
    ("runtime.batch_size", setting("runtime.batch_size", 1025)),
    ("runtime.onnxruntime.graph_optimization_level", clearing("runtime.onnxruntime")),
    ("runtime.onnxruntime.intra_op_num_threads", setting("runtime.onnxruntime.intra_op_num_threads", 5000)),
    ("runtime.onnxruntime.inter_op_num_threads", setting("runtime.onnxruntime.inter_op_num_threads", 5000)),
    ("runtime.onnxruntime.graph_optimization_level", setting("runtime.onnxruntime.graph_optimization_level", "99")),
    ("runtime.onnxruntime.execution_mode", setting("runtime.onnxruntime.execution_mode", "random")),
    ("runtime.onnxruntime.config_entries", unknown_runtime_option),
    ("graphs.mapping", clearing("graphs")),
    ("graphs.mapping", setting("graphs.mapping", "other.onnx")),
    ("graphs.synthesis", setting("graphs.synthesis", "../synthesis.onnx")),
    ("graphs.interpreter", setting("graphs.interpreter", "weights/data.bin")),
    ("graphs.model", setting("graphs.model", "")),
    ("files", clearing("files")),
    ("files", repeated_file),
    ("files", listed_manifest),
    ("files[0].path", setting("files.0.path", "../outside")),
    ("files[0].sha256", setting("files.0.sha256", "")),
    ("interpreter_tables[1].path", setting("interpreter_tables.1.path", "weights/other.bin")),
    ("interpreter_tables[1].offset", setting("interpreter_tables.1.offset", 10240 - 20)),
    ("interpreter_tables[1].offset", setting("interpreter_tables.1.offset", 2)),
    ("interpreter_tables[1].shape", setting("interpreter_tables.1.shape.0", 2**31)),
    ("interpreter_tables[1].shape", setting("interpreter_tables.1.shape.0", 0)),
    ("interpreter_tables[1].shape", clearing("interpreter_tables.1.shape")),
    ("interpreter_tables", setting("interpreter_tables.1.name", "bias1")),
    ("files[4].num_bytes", setting("files.4.num_bytes", 2**60)),
    ("provenance.created_by", setting("provenance.created_by", "x\x00")),
    ("provenance.created_at", setting("provenance.created_at", "yesterday")),
    ("provenance.checkpoint_sha256", setting("provenance.checkpoint_sha256", "0")),
    ("provenance.interpreter_sha256", setting("provenance.interpreter_sha256", "0")),
    ("provenance.annotations_sha256", setting("provenance.annotations_sha256", "0")),
    ("provenance.commit", setting("provenance.commit", "main")),
    ("licence.weights", clearing("licence")),
    ("licence.weights", setting("licence.weights", "  ")),
    ("licence.data", setting("licence.data", "")),
    ("licence.attribution", setting("licence.attribution", "x" * 70_000)),
    ("licence.url", setting("licence.url", "javascript:alert(1)")),
]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a valid manifest with its files."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bundle", manifest_with_tables()).manifest


@pytest.mark.parametrize(("field", "change"), CASES, ids=[f"{n}-{field}" for n, (field, _) in enumerate(CASES)])
def test_wrong_value_is_refused_by_name(complete: Manifest, field: str, change: Callable[[Manifest], None]) -> None:
    manifest = Manifest()
    manifest.CopyFrom(complete)
    change(manifest)
    with pytest.raises(ManifestError, match=r"manifest field .* is .*, expected .*; ") as caught:
        validate_manifest(manifest)
    assert caught.value.field == field


def test_each_top_level_field_but_the_optional_ones_has_a_refusal() -> None:
    refused = {field.replace("[", ".").split(".")[0] for field, _ in CASES}
    assert {field.name for field in Manifest.DESCRIPTOR.fields} - refused == set()


def test_unconditional_model_without_keypoints_is_valid(complete: Manifest) -> None:
    manifest = Manifest()
    manifest.CopyFrom(complete)
    manifest.backbone.c_dim = 0
    for field in ("class_distribution", "keypoints", "keypoint_regression", "parity", "description"):
        manifest.ClearField(field)
    del manifest.score_quantiles[1:]
    manifest.score_quantiles[0].ClearField("class_index")
    validate_manifest(manifest)


@pytest.mark.parametrize(("field", "value"), [("peak_rule", "quadratic_3x3"), ("sigma_pixels", 1.0)])
def test_settings_of_absent_keypoints_are_refused(complete: Manifest, field: str, value: object) -> None:
    manifest = Manifest()
    manifest.CopyFrom(complete)
    manifest.ClearField("keypoints")
    manifest.ClearField("keypoint_regression")
    setattr(manifest.keypoints, field, value)
    with pytest.raises(ManifestError) as caught:
        validate_manifest(manifest)
    assert caught.value.field == f"keypoints.{field}"


def test_the_largest_number_of_classes_is_accepted(tmp_path: Path) -> None:
    manifest = valid_manifest()
    many("classes", 255)(manifest)
    assert len(write_bundle(tmp_path / "bundle", manifest).manifest.classes) == 255
