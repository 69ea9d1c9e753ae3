"""Checks of what a bundle holds and how it is run: files, tables, runtime, provenance, licence."""

from __future__ import annotations

import math
import re

from labelmint.graphs import GRAPHS
from labelmint.v1 import bundle_pb2
from labelmint.validation.rules import (
    SHA256,
    field_error,
    matches,
    matches_or_empty,
    one_of,
    plain_text,
    unique,
    unique_names,
    within,
)

_COMMIT = re.compile(r"[0-9a-f]{7,64}(-dirty)?")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|\+00:00)")
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?<!\.)")
_WINDOWS_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")

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


def check_runtime(runtime: bundle_pb2.Runtime) -> None:
    """Batch size and options of onnxruntime."""
    within("runtime.batch_size", runtime.batch_size, 1, 1024)
    options, field = runtime.onnxruntime, "runtime.onnxruntime"
    within(f"{field}.intra_op_num_threads", options.intra_op_num_threads, 0, 1024)
    within(f"{field}.inter_op_num_threads", options.inter_op_num_threads, 0, 1024)
    levels = {"disable", "basic", "extended", "all"}
    one_of(f"{field}.graph_optimization_level", options.graph_optimization_level, levels)
    one_of(f"{field}.execution_mode", options.execution_mode, {"sequential", "parallel"})
    for key, value in options.config_entries.items():
        one_of(f"{field}.config_entries", key, _RUNTIME_CONFIG_KEYS)
        plain_text(f"{field}.config_entries[{key}]", value, shortest=1, longest=64)


def check_files(manifest: bundle_pb2.Manifest) -> None:
    """Paths, sizes and graphs."""
    within("files (their number)", len(manifest.files), 1, 4096)
    for position, file in enumerate(manifest.files):
        _check_relative_path(f"files[{position}].path", file.path)
        matches(f"files[{position}].sha256", file.sha256, SHA256)
        within(f"files[{position}].num_bytes", file.num_bytes, 0, 2**48)
    paths = [file.path for file in manifest.files]
    # Some file systems do not tell upper from lower case.
    unique("files", [path.lower() for path in [*paths, "manifest.json"]])
    for name in GRAPHS:
        path = getattr(manifest.graphs, name)
        if path not in paths or not path.endswith(".onnx"):
            raise field_error(f"graphs.{name}", path, "an .onnx path that is listed in files")


def _check_relative_path(field: str, path: str) -> None:
    """Check that a path is relative, stays below its root and means the same file on every system."""
    parts = path.split("/")
    is_safe = all(_PATH_PART.fullmatch(part) and not _WINDOWS_DEVICE.fullmatch(part) for part in parts)
    if not is_safe or len(path) > 240 or len(parts) > 8:
        raise field_error(
            field, path, "a relative path of letters, digits, _ . + - with forward slashes", "rename the file"
        )


def check_tables(manifest: bundle_pb2.Manifest) -> None:
    """Tables lie inside listed files."""
    sizes = {file.path: file.num_bytes for file in manifest.files}
    within("interpreter_tables (their number)", len(manifest.interpreter_tables), 0, 1024)
    unique_names("interpreter_tables", [table.name for table in manifest.interpreter_tables])
    for position, table in enumerate(manifest.interpreter_tables):
        field = f"interpreter_tables[{position}]"
        within(f"{field}.shape (its length)", len(table.shape), 1, 8)
        if 0 in table.shape:
            raise field_error(f"{field}.shape", list(table.shape), "sizes of at least 1")
        num_bytes = 4 * math.prod(table.shape)
        if table.path not in sizes:
            raise field_error(f"{field}.path", table.path, "a path that is listed in files")
        if num_bytes > sizes[table.path]:
            raise field_error(f"{field}.shape", list(table.shape), f"numbers inside {sizes[table.path]} bytes")
        within(f"{field}.offset", table.offset, 0, sizes[table.path] - num_bytes)
        if table.offset % 4:
            raise field_error(f"{field}.offset", table.offset, "a multiple of 4")


def check_provenance(provenance: bundle_pb2.Provenance) -> None:
    """Hashes, times and versions."""
    plain_text("provenance.created_by", provenance.created_by)
    matches_or_empty("provenance.created_at", provenance.created_at, _TIME)
    matches_or_empty("provenance.checkpoint_sha256", provenance.checkpoint_sha256, SHA256)
    matches_or_empty("provenance.interpreter_sha256", provenance.interpreter_sha256, SHA256)
    matches_or_empty("provenance.annotations_sha256", provenance.annotations_sha256, SHA256)
    matches_or_empty("provenance.commit", provenance.commit, _COMMIT)
    for name, version in provenance.versions.items():
        plain_text("provenance.versions", name, shortest=1, longest=128)
        plain_text(f"provenance.versions[{name}]", version, longest=256)


def check_licence(licence: bundle_pb2.Licence) -> None:
    """Terms of weights and data."""
    plain_text("licence.weights", licence.weights, shortest=1)
    plain_text("licence.data", licence.data, shortest=1)
    plain_text("licence.attribution", licence.attribution, longest=65536)
    plain_text("licence.url", licence.url)
    if licence.url and not licence.url.startswith(("https://", "http://")):
        raise field_error("licence.url", licence.url, "an http or https address")
