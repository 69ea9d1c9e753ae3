"""Interpreters on disk: `NAME.safetensors` with the weights, `NAME.json` with the shape and what was learned from."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from labelmint_export.errors import CheckpointError, TrainingError
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig
from labelmint_export.stored import load_module, read_description, write_json, write_tensors

FORMAT = "labelmint-interpreter"
FORMAT_VERSION = 1


def save_interpreter(interpreter: Interpreter, path: Path, provenance: Mapping[str, object]) -> None:
    """Write an interpreter.

    Args:
        interpreter: What to write.
        path: `NAME.safetensors`; `NAME.json` is written beside it.
        provenance: How it was made, any JSON.
    """
    write_tensors(path, interpreter.state_dict())
    write_json(
        path.with_suffix(".json"),
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "config": dataclasses.asdict(interpreter.config),
            "provenance": dict(provenance),
        },
    )


def load_interpreter(path: Path) -> Interpreter:
    """Read an interpreter in evaluation mode.

    Raises:
        CheckpointError: A file is missing, malformed or of another shape.
    """
    record = read_description(path, FORMAT, FORMAT_VERSION, "an interpreter from train-interpreter")
    try:
        fields = dict(record["config"])
        fields["taps"] = tuple(TapSpec(**tap) for tap in fields["taps"])
        fields["hidden_widths"] = tuple(fields["hidden_widths"])
        fields["keypoint_hidden_widths"] = tuple(fields["keypoint_hidden_widths"])
        config = InterpreterConfig(**fields)
    except (KeyError, TypeError, ValueError, TrainingError) as error:
        raise CheckpointError(f"{path} describes no interpreter ({error}); train it anew", field="config") from error
    return load_module(lambda: Interpreter(config), path)
