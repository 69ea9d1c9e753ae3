"""Files: tensors as safetensors and records as JSON, which cannot carry code, modules filled from them, and hashes.

What is written appears whole or not at all.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch

from labelmint_export.errors import CheckpointError
from labelmint_export.placing import file_placed_whole

MAX_JSON_BYTES = 16 << 20
"""Size of a description that is read; a generator's has less than 10 kB."""
MAX_HEADER_BYTES = 1 << 20
"""Size of what a safetensors file says of its tensors; a whole training's has 30 kB."""
MAX_NUMBERS = 220_000_000
"""Numbers of a module that is filled: room for the noise of 8192 x 8192, whose module takes 2 GB while it is filled."""

Module = TypeVar("Module", bound=torch.nn.Module)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, and perhaps texts, to a safetensors file that appears whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with file_placed_whole(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # safetensors would leave a file that its owner alone can read
        safetensors.torch.save_file(contiguous, partial, None if metadata is None else dict(metadata))
        partial.chmod(mode)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; give the path of a .safetensors file", field="path") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no safetensors file ({error}); write it anew", field="path") from error


def _check_header(path: Path) -> None:
    """Refuse a file that describes more tensors than anybody has: making them takes minutes and gigabytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, expected at most {MAX_HEADER_BYTES}")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: The file is missing or malformed.
    """
    with _reading(path):
        _check_header(path)
        return safetensors.torch.load_file(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts of a safetensors file, without its tensors.

    Raises:
        CheckpointError: The file is missing or malformed.
    """
    with _reading(path):
        _check_header(path)
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write a JSON file that appears whole or not at all."""
    with file_placed_whole(path) as partial:
        partial.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:  # Any: parsed JSON, checked by the caller
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing, too large or holds no JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
        if not path.is_file():
            raise ValueError("a folder, a device or a pipe")
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist; it belongs beside the .safetensors file", field="path"
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON file ({error}); write it anew", field="path") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} holds {type(record).__name__}, expected a JSON object", field="path")
    return record


def read_description(
    path: Path, kind: str, version: int | None, wanted: str
) -> dict[str, Any]:  # Any: parsed JSON, checked by the caller
    """Read what `NAME.json` says of `NAME.safetensors`.

    Args:
        path: `NAME.safetensors`.
        kind: Format that the description must have.
        version: Version of the format; None for one without versions.
        wanted: What files of this format are and where they come from, for the errors.

    Raises:
        CheckpointError: A file is missing or malformed, or is of another kind.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {problem}, expected {wanted} (.safetensors); give its path", field="path")
    record = read_json(path.with_suffix(".json"))
    if record.get("format") != kind or record.get("format_version") != version:
        raise CheckpointError(
            f"{path} is described as {record.get('format')!r} version {record.get('format_version')!r}, expected "
            f"{kind!r} version {version}; give {wanted}",
            field="format",
        )
    return record


def load_module(make: Callable[[], Module], path: Path) -> Module:
    """Make a module and fill it from a safetensors file.

    A description that claims too much costs nothing: see `fill_module`.

    Args:
        make: Makes the module that was described.
        path: The safetensors file.

    Returns:
        The module in evaluation mode, without gradients.

    Raises:
        CheckpointError: The file is missing or malformed, or is not that of the described module.
    """
    return fill_module(make, read_tensors(path), path)


def fill_module(make: Callable[[], Module], tensors: Mapping[str, torch.Tensor], path: Path) -> Module:
    """Make a module and fill it, comparing shapes before any memory is taken for it.

    Args:
        make: Makes the module that was described.
        tensors: Its state dict.
        path: Where they come from, for the errors.

    Returns:
        The module in evaluation mode, without gradients.

    Raises:
        CheckpointError: The module cannot be made, or the tensors are not its own.
    """
    check_shapes(describe_module(make, path), {name: tensor.shape for name, tensor in tensors.items()}, path)
    return fill_described(make, tensors, path)


def describe_module(make: Callable[[], Module], path: Path) -> Module:
    """Make a module whose tensors have shapes and nothing else, which takes no memory.

    Raises:
        CheckpointError: The module cannot be made, or is larger than any that is used.
    """
    try:
        with torch.device("meta"):
            described = make()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} comes with a description of no module that can be made ({error}); write it anew", field="config"
        ) from error
    count = sum(tensor.numel() for tensor in described.state_dict().values())
    if count > MAX_NUMBERS:
        raise CheckpointError(
            f"{path} is described as a network of {count} numbers, expected at most {MAX_NUMBERS}; give a smaller one",
            field="config",
        )
    return described


def fill_described(make: Callable[[], Module], tensors: Mapping[str, torch.Tensor], path: Path) -> Module:
    """Make a module and fill it with tensors whose shapes were checked.

    Raises:
        CheckpointError: A tensor does not hold finite numbers.
    """
    check_values(tensors, path)
    module = make()
    module.load_state_dict(dict(tensors))
    return module.eval().requires_grad_(False)


def load_weights(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Put tensors into a module.

    Raises:
        CheckpointError: A tensor is missing, left over, of another shape or not finite.
    """
    check_shapes(module, {name: tensor.shape for name, tensor in tensors.items()}, path)
    check_values(tensors, path)
    module.load_state_dict(dict(tensors))


def check_shapes(module: torch.nn.Module, shapes: Mapping[str, Sequence[int]], path: Path) -> None:
    """Check that a module's tensors have these names and shapes.

    Raises:
        CheckpointError: One is missing, left over or of another shape.
    """
    expected = module.state_dict()
    for name in sorted(expected.keys() ^ shapes.keys()):
        problem = "is missing from" if name in expected else "has no place for what is in"
        raise CheckpointError(f"{name} {problem} {path}; the file is of another shape", field=name)
    for name, shape in shapes.items():
        if tuple(shape) != tuple(expected[name].shape):
            raise CheckpointError(
                f"{name} in {path} has shape {list(shape)}, expected {list(expected[name].shape)}", field=name
            )


def check_values(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check that tensors hold finite numbers of 16 bits or more.

    Raises:
        CheckpointError: One does not.
    """
    for name, tensor in tensors.items():
        if tensor.is_complex() or (tensor.is_floating_point() and tensor.element_size() < 2):
            raise CheckpointError(
                f"{name} in {path} has dtype {tensor.dtype}, expected float16, bfloat16 or float32; convert it",
                field=name,
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{name} in {path} holds values that are not finite; take another snapshot", field=name
            )


def sha256_of_files(paths: Sequence[Path]) -> str:
    """Hash files, in the order given, into one hexadecimal digest."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
