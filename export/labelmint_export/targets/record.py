"""The manifest of a target, `target.json`: what it is, what it was made from, what it needs, the hash of every file."""

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmint.bundle import sha256_of_file
from labelmint.graphs import BATCH_DIMENSION, TensorSpec, input_specs, output_specs
from labelmint_export.errors import BuildError
from labelmint_export.precision import FLOAT32_PARTS, PRECISIONS, TOLERANCES, Precision
from labelmint_export.stored import read_json, write_json
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Target, Written
from labelmint_export.targets.settings import TargetSettings

RECORD_NAME = "target.json"
FORMAT = "labelmint-target"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TargetRecord:
    """What was read from a target's manifest, as far as verification needs it."""

    folder: Path
    """Where the target lies."""
    target: str
    """Name of the target's kind."""
    precision: Precision
    """Of its feature maps."""
    bundle_digest: str
    """Of the bundle that it belongs to."""
    tolerances: Mapping[str, tuple[float, str]]
    """Check -> tolerance and bound."""


def target_name(target: str, precision: str) -> str:
    """Name of a target's folder, by which `verify` knows it as an engine."""
    return f"{target}-{precision}"


def write_record(
    folder: Path,
    target: Target,
    model: TargetModel,
    settings: TargetSettings,
    written: Written,
    sources: Mapping[str, str],
) -> None:
    """Describe a target that was written; hashes all its files.

    Args:
        folder: Of the target, complete but for the manifest.
        target: Its kind.
        model: What it was written from.
        settings: How.
        written: What the target says of itself.
        sources: Name of a source -> sha256.
    """
    manifest = model.manifest
    half = model.precision != "float32"
    record: dict[str, object] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": target_name(target.name, model.precision),
        "target": target.name,
        "precision": model.precision,
        "float32_parts": list(FLOAT32_PARTS) if half else ["everything"],
        "bundle": {"name": manifest.name, "version": manifest.version, "digest": manifest.digest},
        "sources": dict(sources),
        "inputs": [_describe(spec) for spec in input_specs(manifest)],
        "outputs": [_describe(spec) for spec in output_specs(manifest)],
        "profile": settings.profile.record(),
        "tolerances": {
            name: {"tolerance": tolerance, "bound": bound}
            for name, (tolerance, bound) in TOLERANCES[model.precision].items()
        },
        "versions": {"python": platform.python_version(), **written.versions},
        "written_on": {"system": platform.system(), "machine": platform.machine()},
        "device": dict(written.device),
        "details": dict(written.details),
        "licence": {
            "weights": manifest.licence.weights,
            "data": manifest.licence.data,
            "attribution": manifest.licence.attribution,
            "url": manifest.licence.url,
        },
        "files": [
            {
                "path": path.relative_to(folder).as_posix(),
                "num_bytes": path.stat().st_size,
                "sha256": sha256_of_file(path),
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ],
    }
    write_json(folder / RECORD_NAME, record)


def _describe(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": [BATCH_DIMENSION, *spec.shape]}


def read_record(folder: Path) -> TargetRecord:
    """Read a target's manifest and check every file that it lists.

    Raises:
        BuildError: The manifest describes no target, or a file is missing or altered.
        CheckpointError: The manifest is missing, too large or no JSON.
    """
    path = folder / RECORD_NAME
    record = read_json(path)
    try:
        return _check_record(folder, record)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise BuildError(f"{path} describes no target ({error!r}); write the target anew", field="engine") from error


def _check_record(folder: Path, record: dict[str, Any]) -> TargetRecord:  # Any: parsed JSON, checked here
    if record["format"] != FORMAT or record["format_version"] != FORMAT_VERSION:
        raise BuildError(
            f"{folder / RECORD_NAME} has format {record['format']!r} version {record['format_version']!r}, expected "
            f"{FORMAT!r} version {FORMAT_VERSION}; write the target anew",
            field="format",
        )
    if record["precision"] not in PRECISIONS:
        raise BuildError(
            f"precision in {folder / RECORD_NAME} is {record['precision']!r}, expected one of {list(PRECISIONS)}",
            field="precision",
        )
    for file in record["files"]:
        _check_file(folder, str(file["path"]), int(file["num_bytes"]), str(file["sha256"]))
    return TargetRecord(
        folder=folder,
        target=str(record["target"]),
        precision=record["precision"],
        bundle_digest=str(record["bundle"]["digest"]),
        tolerances=_check_tolerances(folder, record["precision"], record["tolerances"]),
    )


def _check_tolerances(
    folder: Path, precision: Precision, tolerances: Mapping[str, Any]
) -> dict[str, tuple[float, str]]:  # Any: parsed JSON, checked here
    """Refuse tolerances by which a target would hold that was not compared in full."""
    given = {str(name): (float(one["tolerance"]), str(one["bound"])) for name, one in tolerances.items()}
    for name, (_, bound) in TOLERANCES[precision].items():
        tolerance, stated = given.get(name, (math.nan, "none"))
        if not math.isfinite(tolerance) or stated != bound:
            raise BuildError(
                f"tolerance {name} in {folder / RECORD_NAME} is {tolerance:g} with bound {stated}, expected a number "
                f"with bound {bound}; write the target anew",
                field="tolerances",
            )
    return given


def _check_file(folder: Path, relative: str, num_bytes: int, sha256: str) -> None:
    path = folder / relative
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise BuildError(f"{relative!r} is no file of target {folder}; write the target anew", field="files")
    if path.stat().st_size != num_bytes or sha256_of_file(path) != sha256:
        raise BuildError(
            f"{relative} of target {folder} is not the file that was written; write the target anew", field="files"
        )
