"""Generators on disk: `NAME.safetensors` holds the weights, `NAME.json` the shape. Neither can carry code."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.config import GeneratorConfig
from labelmint_export.generator.stylegan2 import Generator
from labelmint_export.stored import load_module, read_description, write_json, write_tensors

FORMAT = "labelmint-generator"
FORMAT_VERSION = 1


def config_to_record(config: GeneratorConfig) -> dict[str, object]:
    """Turn a shape into JSON's types."""
    record = dataclasses.asdict(config)
    record["channels"] = {str(r): width for r, width in config.channels.items()}
    return record


def config_from_record(record: Mapping[str, Any], path: Path) -> GeneratorConfig:  # Any: parsed JSON, checked here
    """Turn JSON's types into a shape.

    Raises:
        CheckpointError: A field is missing, unknown or of another type.
    """
    try:
        fields = dict(record)
        fields["channels"] = {int(r): int(width) for r, width in fields["channels"].items()}
        return GeneratorConfig(**fields)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, GeneratorError) as error:
        raise CheckpointError(f"{path} describes no generator ({error}); write it anew", field="config") from error


def save_generator(generator: Generator, path: Path, provenance: Mapping[str, object] | None = None) -> None:
    """Write a generator.

    Args:
        generator: What to write.
        path: `NAME.safetensors`; `NAME.json` is written beside it.
        provenance: How it was made, any JSON.
    """
    write_tensors(path, generator.state_dict())
    record: dict[str, object] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config_to_record(generator.config),
        "provenance": dict(provenance or {}),
    }
    write_json(path.with_suffix(".json"), record)


def load_generator(path: Path) -> Generator:
    """Read a generator.

    Args:
        path: `NAME.safetensors`, with `NAME.json` beside it.

    Returns:
        The generator in evaluation mode, float32, on the CPU.

    Raises:
        CheckpointError: A file is missing, malformed or of another shape.
    """
    record = read_description(path, FORMAT, FORMAT_VERSION, "a generator from train-gan")
    config = config_from_record(record.get("config", {}), path.with_suffix(".json"))
    return load_module(lambda: Generator(config), path)
