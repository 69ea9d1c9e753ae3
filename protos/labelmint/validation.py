"""Checks of a manifest's values: each field within its range, and no two fields in contradiction."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from labelmint.errors import ManifestError
from labelmint.manifest import SCHEMA_VERSION
from labelmint.v1 import bundle_pb2

__all__ = ["validate_manifest"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}(-dirty)?")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|\+00:00)")
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?<!\.)")
_WINDOWS_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")

_ARCHITECTURES = {
    "stylegan1": frozenset({"orig"}),
    "stylegan2": frozenset({"orig", "resnet", "skip"}),
    "stylegan3": frozenset({"r", "t"}),
}

_MAX_TEXT = 4096
_MAX_SIDE = 16384
_MAX_WIDTH = 65536

# Only keys that change arithmetic or scheduling: others make onnxruntime read or write files of the bundle's choice.
_RUNTIME_CONFIG_KEYS = frozenset(
    {
        "mlas.enable_gemm_fastmath_arm64_bfloat16",
        "optimization.enable_gelu_approximation",
        "session.disable_aot_function_inlining",
        "session.disable_prepacking",
        "session.dynamic_block_base",
        "session.force_spinning_stop",
        "session.inter_op.allow_spinning",
        "session.intra_op.allow_spinning",
        "session.set_denormal_as_zero",
        "session.use_device_allocator_for_initializers",
        "session.use_env_allocators",
    }
)


def validate_manifest(manifest: bundle_pb2.Manifest) -> None:
    """Check every field of a manifest; `digest` and the files' hashes are only checked for their form.

    Raises:
        ManifestError: A field is missing, out of range, or contradicts another; the error names it.
    """
    _check_identity(manifest)
    _check_backbone(manifest.backbone)
    _check_frame(manifest)
    _check_taps(manifest.taps)
    _one_of("upsampling", manifest.upsampling, {"bilinear"})
    _check_classes(manifest)
    _check_ensembles(manifest)
    _check_keypoints(manifest.keypoints)
    _one_of("vote_rule", manifest.vote_rule, {"majority", "mean_probability", "mean_logits"})
    _one_of("uncertainty_rule", manifest.uncertainty_rule, {"js_divergence"})
    _one_of("noise_mode", manifest.noise_mode, {"const", "none"})
    _one_of("precision", manifest.precision, {"float32", "float16", "bfloat16"})
    _check_truncation(manifest)
    _check_class_distribution(manifest)
    _check_score_quantiles(manifest)
    _check_parity(manifest.parity)
    _check_runtime(manifest.runtime)
    _check_files(manifest)
    _check_tables(manifest)
    _check_provenance(manifest.provenance)
    _check_licence(manifest.licence)


def _check_identity(manifest: bundle_pb2.Manifest) -> None:
    if manifest.schema_version > SCHEMA_VERSION:
        raise _error(
            "schema_version", manifest.schema_version, f"at most {SCHEMA_VERSION}", "upgrade labelmint to read it"
        )
    _within("schema_version", manifest.schema_version, 1, SCHEMA_VERSION)
    _matches("name", manifest.name, _NAME)
    _matches("version", manifest.version, _VERSION)
    _text("description", manifest.description)
    _matches_or_empty("digest", manifest.digest, _SHA256)


def _check_backbone(backbone: bundle_pb2.Backbone) -> None:
    _one_of("backbone.family", backbone.family, _ARCHITECTURES.keys())
    _one_of("backbone.architecture", backbone.architecture, _ARCHITECTURES[backbone.family])
    _within("backbone.resolution", backbone.resolution, 4, _MAX_SIDE)
    if backbone.resolution & (backbone.resolution - 1):
        raise _error("backbone.resolution", backbone.resolution, "a power of two")
    _one_of("backbone.image_channels", backbone.image_channels, {1, 3})
    _within("backbone.z_dim", backbone.z_dim, 1, _MAX_WIDTH)
    _within("backbone.c_dim", backbone.c_dim, 0, _MAX_WIDTH)
    _within("backbone.w_dim", backbone.w_dim, 1, _MAX_WIDTH)
    _within("backbone.num_ws", backbone.num_ws, 1, 1024)
    _within("backbone.num_parameters", backbone.num_parameters, 1, 2**48)


def _check_frame(manifest: bundle_pb2.Manifest) -> None:
    frame, resolution = manifest.frame, manifest.backbone.resolution
    _within("frame.image_height", frame.image_height, 1, resolution)
    _within("frame.image_width", frame.image_width, 1, resolution)
    _within("frame.crop_top", frame.crop_top, 0, resolution - frame.image_height)
    _within("frame.crop_left", frame.crop_left, 0, resolution - frame.image_width)
    _within("frame.label_height", frame.label_height, 1, _MAX_SIDE)
    _within("frame.label_width", frame.label_width, 1, _MAX_SIDE)


def _check_taps(taps: Sequence[bundle_pb2.FeatureTap]) -> None:
    _within("taps (their number)", len(taps), 1, 1024)
    _unique_names("taps", [tap.name for tap in taps])
    for position, tap in enumerate(taps):
        _within(f"taps[{position}].channels", tap.channels, 1, _MAX_WIDTH)
        _within(f"taps[{position}].resolution", tap.resolution, 1, _MAX_SIDE)


def _check_classes(manifest: bundle_pb2.Manifest) -> None:
    _within("classes (their number)", len(manifest.classes), 2, 255)
    _unique_names("classes", [entry.name for entry in manifest.classes])
    for position, entry in enumerate(manifest.classes):
        for channel, value in (("red", entry.red), ("green", entry.green), ("blue", entry.blue)):
            _within(f"classes[{position}].{channel}", value, 0, 255)
    _one_of("ignore_label", manifest.ignore_label, {255})


def _check_ensembles(manifest: bundle_pb2.Manifest) -> None:
    _check_ensemble("segmentation", manifest.segmentation)
    has_keypoints = bool(manifest.keypoints.names)
    if manifest.HasField("keypoint_regression") != has_keypoints:
        raise _error(
            "keypoint_regression",
            "present" if not has_keypoints else "absent",
            f"it to go with the {len(manifest.keypoints.names)} names of keypoints",
        )
    if has_keypoints:
        _check_ensemble("keypoint_regression", manifest.keypoint_regression)


def _check_ensemble(field: str, ensemble: bundle_pb2.Ensemble) -> None:
    _within(f"{field}.num_members", ensemble.num_members, 1, 1024)
    _within(f"{field}.hidden_widths (their number)", len(ensemble.hidden_widths), 1, 16)
    for position, width in enumerate(ensemble.hidden_widths):
        _within(f"{field}.hidden_widths[{position}]", width, 1, _MAX_WIDTH)


def _check_keypoints(keypoints: bundle_pb2.KeypointSchema) -> None:
    num_keypoints = len(keypoints.names)
    _within("keypoints.names (their number)", num_keypoints, 0, 1024)
    _unique_names("keypoints.names", keypoints.names)
    for field, pairs in (("skeleton", keypoints.skeleton), ("left_right_pairs", keypoints.left_right_pairs)):
        _within(f"keypoints.{field} (their number)", len(pairs), 0, num_keypoints**2)
        for position, pair in enumerate(pairs):
            name = f"keypoints.{field}[{position}]"
            _within(f"{name}.first", pair.first, 0, num_keypoints - 1)
            _within(f"{name}.second", pair.second, 0, num_keypoints - 1)
            if pair.first == pair.second:
                raise _error(name, f"({pair.first}, {pair.second})", "two different keypoints")
    mirrored = [index for pair in keypoints.left_right_pairs for index in (pair.first, pair.second)]
    _unique("keypoints.left_right_pairs", mirrored)
    thresholds = keypoints.visibility_thresholds
    if len(thresholds) != num_keypoints:
        raise _error("keypoints.visibility_thresholds", f"{len(thresholds)} values", f"{num_keypoints}, one a keypoint")
    for position, threshold in enumerate(thresholds):
        _finite(f"keypoints.visibility_thresholds[{position}]", threshold, -1e6, 1e6)
    if num_keypoints:
        _one_of("keypoints.peak_rule", keypoints.peak_rule, {"quadratic_3x3"})
        _finite("keypoints.sigma_pixels", keypoints.sigma_pixels, 1e-3, _MAX_SIDE)
    else:
        _one_of("keypoints.peak_rule", keypoints.peak_rule, {""})
        _finite("keypoints.sigma_pixels", keypoints.sigma_pixels, 0.0, 0.0)


def _check_truncation(manifest: bundle_pb2.Manifest) -> None:
    truncation = manifest.truncation
    _finite("truncation.max_psi", truncation.max_psi, 1e-3, 2.0)
    _finite("truncation.default_psi", truncation.default_psi, 0.0, min(1.0, truncation.max_psi))
    _within("truncation.cutoff", truncation.cutoff, 0, manifest.backbone.num_ws)


def _check_class_distribution(manifest: bundle_pb2.Manifest) -> None:
    field, distribution, c_dim = "class_distribution", manifest.class_distribution, manifest.backbone.c_dim
    if len(distribution) != c_dim:
        raise _error(field, f"{len(distribution)} values", f"{c_dim}, one for each class of backbone.c_dim")
    for position, probability in enumerate(distribution):
        _finite(f"{field}[{position}]", probability, 0.0, 1.0)
    if c_dim and abs(math.fsum(distribution) - 1.0) > 1e-6:
        raise _error(field, f"values that sum to {math.fsum(distribution)!r}", "a sum of 1 within 1e-6")


def _check_score_quantiles(manifest: bundle_pb2.Manifest) -> None:
    c_dim = manifest.backbone.c_dim
    _within("score_quantiles (their number)", len(manifest.score_quantiles), 0, 65536)
    _unique(
        "score_quantiles (truncation_psi, class_index)",
        [(entry.truncation_psi, entry.class_index) for entry in manifest.score_quantiles],
    )
    for position, entry in enumerate(manifest.score_quantiles):
        field = f"score_quantiles[{position}]"
        _finite(f"{field}.truncation_psi", entry.truncation_psi, 0.0, manifest.truncation.max_psi)
        if entry.HasField("class_index") != bool(c_dim):
            raise _error(f"{field}.class_index", entry.class_index, "it to be set if and only if the model has classes")
        _within(f"{field}.class_index", entry.class_index, 0, max(c_dim, 1) - 1)
        _within(f"{field}.scores (their number)", len(entry.scores), 2, 100_000)
        previous = 0.0
        for rank, score in enumerate(entry.scores):
            _finite(f"{field}.scores[{rank}]", score, previous, 1e6)
            previous = score
        _within(f"{field}.num_samples", entry.num_samples, 1, 2**63)


def _check_parity(parity: bundle_pb2.Parity) -> None:
    _within("parity.checks (their number)", len(parity.checks), 0, 1024)
    _unique_names("parity.checks", [check.name for check in parity.checks])
    if parity.checks:
        _within("parity.num_samples", parity.num_samples, 1, 2**63)
    for position, check in enumerate(parity.checks):
        field = f"parity.checks[{position}]"
        _finite(f"{field}.measured", check.measured, -1e300, 1e300)
        _finite(f"{field}.tolerance", check.tolerance, -1e300, 1e300)
        _one_of(f"{field}.bound", check.bound, {"max", "min"})
        is_met = check.measured <= check.tolerance if check.bound == "max" else check.measured >= check.tolerance
        if not is_met:
            limit = "at most" if check.bound == "max" else "at least"
            raise _error(f"{field}.measured", check.measured, f"{limit} {check.tolerance} for {check.name}")


def _check_runtime(runtime: bundle_pb2.Runtime) -> None:
    _within("runtime.batch_size", runtime.batch_size, 1, 1024)
    options, field = runtime.onnxruntime, "runtime.onnxruntime"
    _within(f"{field}.intra_op_num_threads", options.intra_op_num_threads, 0, 1024)
    _within(f"{field}.inter_op_num_threads", options.inter_op_num_threads, 0, 1024)
    levels = {"disable", "basic", "extended", "all"}
    _one_of(f"{field}.graph_optimization_level", options.graph_optimization_level, levels)
    _one_of(f"{field}.execution_mode", options.execution_mode, {"sequential", "parallel"})
    for key, value in options.config_entries.items():
        _one_of(f"{field}.config_entries", key, _RUNTIME_CONFIG_KEYS)
        _text(f"{field}.config_entries[{key}]", value, shortest=1, longest=64)


def _check_files(manifest: bundle_pb2.Manifest) -> None:
    _within("files (their number)", len(manifest.files), 1, 4096)
    for position, file in enumerate(manifest.files):
        _check_relative_path(f"files[{position}].path", file.path)
        _matches(f"files[{position}].sha256", file.sha256, _SHA256)
        _within(f"files[{position}].num_bytes", file.num_bytes, 0, 2**48)
    paths = [file.path for file in manifest.files]
    # Some file systems do not tell upper from lower case.
    _unique("files", [path.lower() for path in [*paths, "manifest.json"]])
    graphs = manifest.graphs
    for stage, path in (
        ("mapping", graphs.mapping),
        ("synthesis", graphs.synthesis),
        ("interpreter", graphs.interpreter),
        ("model", graphs.model),
    ):
        if path not in paths or not path.endswith(".onnx"):
            raise _error(f"graphs.{stage}", path, "an .onnx path that is listed in files")


def _check_relative_path(field: str, path: str) -> None:
    """Check that a path is relative, stays below its root and means the same file on every system."""
    parts = path.split("/")
    is_safe = all(_PATH_PART.fullmatch(part) and not _WINDOWS_DEVICE.fullmatch(part) for part in parts)
    if not is_safe or len(path) > 240 or len(parts) > 8:
        raise _error(field, path, "a relative path of letters, digits, _ . + - with forward slashes", "rename the file")


def _check_tables(manifest: bundle_pb2.Manifest) -> None:
    sizes = {file.path: file.num_bytes for file in manifest.files}
    _within("interpreter_tables (their number)", len(manifest.interpreter_tables), 0, 1024)
    _unique_names("interpreter_tables", [table.name for table in manifest.interpreter_tables])
    for position, table in enumerate(manifest.interpreter_tables):
        field = f"interpreter_tables[{position}]"
        _within(f"{field}.shape (its length)", len(table.shape), 1, 8)
        num_bytes = 4 * math.prod(table.shape)
        if table.path not in sizes:
            raise _error(f"{field}.path", table.path, "a path that is listed in files")
        _within(f"{field}.offset", table.offset, 0, max(sizes[table.path] - num_bytes, 0))
        if table.offset % 4 or num_bytes > sizes[table.path]:
            raise _error(
                field, f"{num_bytes} bytes at {table.offset}", f"numbers of 4 bytes inside {sizes[table.path]} bytes"
            )


def _check_provenance(provenance: bundle_pb2.Provenance) -> None:
    _text("provenance.created_by", provenance.created_by)
    _matches_or_empty("provenance.created_at", provenance.created_at, _TIME)
    _matches_or_empty("provenance.checkpoint_sha256", provenance.checkpoint_sha256, _SHA256)
    _matches_or_empty("provenance.interpreter_sha256", provenance.interpreter_sha256, _SHA256)
    _matches_or_empty("provenance.annotations_sha256", provenance.annotations_sha256, _SHA256)
    _matches_or_empty("provenance.commit", provenance.commit, _COMMIT)
    for name, version in provenance.versions.items():
        _text("provenance.versions", name, shortest=1, longest=128)
        _text(f"provenance.versions[{name}]", version, longest=256)


def _check_licence(licence: bundle_pb2.Licence) -> None:
    _text("licence.weights", licence.weights, shortest=1)
    _text("licence.data", licence.data, shortest=1)
    _text("licence.attribution", licence.attribution, longest=65536)
    _text("licence.url", licence.url)
    if licence.url and not licence.url.startswith(("https://", "http://")):
        raise _error("licence.url", licence.url, "an http or https address")


def _error(field: str, got: object, expected: str, advice: str = "rebuild the bundle") -> ManifestError:
    shown = f"{got!r}" if not isinstance(got, str) or len(got) <= 200 else f"{got[:200]!r}..."
    # "taps (their number)" is for the reader; programs get the bare name.
    return ManifestError(
        f"manifest field {field} is {shown}, expected {expected}; {advice}", field=field.partition(" (")[0]
    )


def _within(field: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise _error(field, value, f"an integer in [{lowest}, {highest}]")


def _finite(field: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:  # false for NaN
        raise _error(field, value, f"a number in [{lowest}, {highest}]")


def _one_of(field: str, value: str | int, known: Collection[str | int]) -> None:
    if value not in known:
        raise _error(field, value, f"one of {sorted(known, key=str)}", "upgrade labelmint or rebuild the bundle")


def _matches(field: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise _error(field, value, f"a text of the form {pattern.pattern}")


def _matches_or_empty(field: str, value: str, pattern: re.Pattern[str]) -> None:
    if value:
        _matches(field, value, pattern)


def _text(field: str, value: str, *, shortest: int = 0, longest: int = _MAX_TEXT) -> None:
    """Check a text for people: its length, and that it cannot drive a terminal."""
    has_control = any(unicodedata.category(character) == "Cc" and character not in "\n\t" for character in value)
    if not shortest <= len(value.strip()) <= len(value) <= longest or has_control:
        raise _error(field, value, f"{shortest} to {longest} characters without control characters")


def _unique_names(field: str, names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        _text(f"{field}[{position}]", name, shortest=1, longest=128)
    _unique(field, names)


def _unique(field: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise _error(field, value, "each value once")
        seen.add(value)
