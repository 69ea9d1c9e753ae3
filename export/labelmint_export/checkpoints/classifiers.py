"""Files of DatasetGAN's trained pixel classifiers -> an interpreter. Nothing in them is executed."""

import re
from pathlib import Path

import numpy as np

from labelmint_export.checkpoints.archives import read_checkpoint
from labelmint_export.checkpoints.datasetgan_classifiers import ensemble_from_state_dicts, interpreter_from_state_dicts
from labelmint_export.checkpoints.net import refusing_malformed
from labelmint_export.checkpoints.state_dicts import StateDict
from labelmint_export.errors import CheckpointError
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.ensemble import Interpreter

FILE_NAME = re.compile(r"model_(\d{1,4})\.pth")
MAX_MEMBERS = 64
"""Classifiers of an ensemble; DatasetGAN's have 10."""


def read_classifiers(
    folder: Path, *, taps: tuple[TapSpec, ...], label_resolution: int
) -> tuple[Interpreter, list[Path]]:
    """Read the ensemble that a folder holds.

    Args:
        folder: With `model_0.pth`, `model_1.pth` and so on; other files are left aside.
        taps: In the order in which their channels were concatenated.
        label_resolution: Side of the masks, pixels.

    Returns:
        The interpreter in evaluation mode, without keypoints, and the files in the order of its members.

    Raises:
        CheckpointError: There is no such file, a number is missing, or a file is no classifier on these taps.
    """
    files = {int(match[1]): path for path in folder.glob("model_*.pth") if (match := FILE_NAME.fullmatch(path.name))}
    if not files:
        raise CheckpointError(
            f"{folder} holds no model_0.pth; give the folder in which DatasetGAN left its classifiers",
            field="classifiers",
        )
    missing = sorted(set(range(len(files))) - files.keys())
    if missing:
        raise CheckpointError(
            f"{folder} holds {len(files)} classifiers but no model_{missing[0]}.pth; give all of the ensemble",
            field="classifiers",
        )
    ordered = [files[index] for index in range(len(files))]
    if len(ordered) > MAX_MEMBERS:
        raise CheckpointError(
            f"{folder} holds {len(ordered)} classifiers, expected at most {MAX_MEMBERS}; give one ensemble",
            field="classifiers",
        )
    with refusing_malformed(folder, "classifiers"):
        members = [_state_of(read_checkpoint(path), path) for path in ordered]
        return interpreter_from_state_dicts(members, taps=taps, label_resolution=label_resolution), ordered


def describe_classifier(content: object, path: Path) -> dict[str, object] | None:
    """Say what a file of one classifier holds, in JSON's types; None if the content is something else."""
    if not isinstance(content, dict) or "model_state_dict" not in content:
        return None
    ensemble = ensemble_from_state_dicts([_state_of(content, path)])
    _, h1, features = ensemble.linear1.weight.shape
    _, num_classes, h2 = ensemble.linear3.weight.shape
    return {
        "path": str(path),
        "kind": "DatasetGAN pixel classifier",
        "num_features": features,
        "hidden_widths": [h1, h2],
        "num_classes": num_classes,
        "num_parameters": sum(parameter.numel() for parameter in ensemble.parameters()),
    }


def _state_of(content: object, path: Path) -> StateDict:
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) for name, value in state.items()
    ):
        raise CheckpointError(
            f"{path} holds no model_state_dict of arrays; give a pixel classifier of DatasetGAN's program",
            field="model_state_dict",
        )
    return state
