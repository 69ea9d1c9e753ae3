"""Writing a target: one folder that appears whole or not at all, with a manifest beside the artefact."""

from collections.abc import Mapping
from pathlib import Path

from labelmint_export.errors import BuildError
from labelmint_export.placing import placed_whole
from labelmint_export.precision import Precision
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Target
from labelmint_export.targets.record import RECORD_NAME, target_name, write_record
from labelmint_export.targets.settings import TargetSettings


def target_folder(target: Target, precision: Precision, out: Path, *, overwrite: bool = False) -> Path:
    """The folder that a target gets.

    Args:
        target: From the registry.
        precision: Of its feature maps.
        out: Folder of all targets of a bundle.
        overwrite: Whether a target that is there may be replaced.

    Raises:
        BuildError: Something is there that may not be replaced.
    """
    folder = out / target_name(target.name, precision)
    if folder.exists() and not overwrite:
        raise BuildError(f"{folder} exists; give another --out, or --overwrite to replace it", field="out")
    if folder.exists() and not (folder / RECORD_NAME).is_file():
        raise BuildError(f"{folder} exists and is no target, so it is not replaced; give another --out", field="out")
    return folder


def write_target(
    target: Target,
    model: TargetModel,
    settings: TargetSettings,
    sources: Mapping[str, str],
    out: Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a model as one target.

    Args:
        target: From the registry.
        model: In a precision that the target knows.
        settings: Batches and devices.
        sources: Name of a source -> sha256, for the manifest.
        out: Folder of all targets of a bundle; the target gets a folder in it.
        overwrite: Whether a target that is there may be replaced.

    Returns:
        The target's folder.

    Raises:
        BuildError: The target is there already, its tools are missing, or they do not take the model.
    """
    folder = target_folder(target, model.precision, out, overwrite=overwrite)
    with placed_whole(folder) as staging:
        written = target.write(model, settings, staging)
        write_record(staging, target, model, settings, written, sources)
    return folder
