"""One way in for every generator that people hold."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from labelmint_export.checkpoints import rosinality, stylegan2, stylegan3
from labelmint_export.checkpoints.archives import read_checkpoint
from labelmint_export.checkpoints.classifiers import describe_classifier
from labelmint_export.checkpoints.datasetgan_stylegan1 import stylegan1_from_state_dict
from labelmint_export.checkpoints.net import refusing_malformed
from labelmint_export.checkpoints.records import Array, ModuleRecord, TflibNetwork
from labelmint_export.checkpoints.tflib import find_generator, is_stylegan1
from labelmint_export.checkpoints.tflib_stylegan1 import stylegan1_from_network
from labelmint_export.checkpoints.tflib_stylegan2 import stylegan2_from_network
from labelmint_export.errors import CheckpointError
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import load_generator as load_snapshot
from labelmint_export.generator.stylegan1 import StyleGAN1Generator
from labelmint_export.generator.stylegan3 import StyleGAN3Generator
from labelmint_export.npy_files import read_npy

AnyGenerator: TypeAlias = Generator | StyleGAN1Generator | StyleGAN3Generator

KINDS = (
    "a snapshot of StyleGAN2-ADA, of the StyleGAN3 programs, or of the TensorFlow programs of StyleGAN and StyleGAN2 "
    "(.pkl), a StyleGAN2 of rosinality's program (.pt), a StyleGAN1 of DatasetGAN's program (.pt), or labelmint's own "
    ".safetensors; give one of these"
)
AVERAGED = ("G_ema", "g_running", "generator", "state_dict")
"""Where programs keep the generator inside a snapshot."""
BARE_ROSINALITY = {"input.input", "conv1.conv.weight", "style.1.weight"}
"""Some keys of `g_ema` of rosinality's program, which people also save alone."""
MAX_MEAN_NUMBERS = 1 << 22
"""Numbers in a file of the mean w, which may hold it once for each layer."""
DATA_PARALLEL = "module."
"""In front of every key of a network that was saved inside of torch's DataParallel."""


def load_generator(path: Path | str, *, mean_latent: Path | str | None = None) -> AnyGenerator:
    """Read a generator from any file that people hold; nothing in the file is executed.

    Args:
        path: NVIDIA's StyleGAN2-ADA or StyleGAN3 `.pkl`, the TensorFlow `.pkl` of StyleGAN1 and StyleGAN2, rosinality's
            StyleGAN2 `.pt`, DatasetGAN's StyleGAN1 `.pt`, or labelmint's `.safetensors`.
        mean_latent: `.npy` file, float [w_dim] or [..., w_dim] with the same w in each row as DatasetGAN's program
            writes it, for files that lack the mean w (StyleGAN1, old snapshots of rosinality's program); None takes
            what the file has, or the mean of 8,000 mapped latents.

    Returns:
        The generator in evaluation mode, float32, on the CPU: `mapping(z, c, truncation_psi, truncation_cutoff)` gives
        ws, `synthesis(ws, noise_mode, noise)` image and taps.

    Raises:
        CheckpointError: The file is missing, malformed, of another kind, or asks for what no snapshot needs.
    """
    path = Path(path)
    mean = None if mean_latent is None else _read_mean(Path(mean_latent))
    with refusing_malformed(path, "path"):
        if path.suffix == ".safetensors":
            return _without_mean(lambda: load_snapshot(path), path)(mean)
        _, make = _recognise(read_checkpoint(path), path)
        return make(mean)


def inspect_checkpoint(path: Path | str) -> dict[str, object]:
    """Say what a file holds.

    Args:
        path: As for `load_generator`, or one of DatasetGAN's pixel classifiers (`model_0.pth`).

    Returns:
        Kind, shape and, of a generator, taps, in JSON's types.

    Raises:
        CheckpointError: As for `load_generator`.
    """
    path = Path(path)
    networks: list[str] = []
    if path.suffix == ".safetensors":
        kind, generator = "labelmint StyleGAN2", load_generator(path)
    else:
        with refusing_malformed(path, "path"):
            content = read_checkpoint(path)
            if described := describe_classifier(content, path):
                return described
            kind, make = _recognise(content, path)
            generator, networks = make(None), _networks_in(content)
    config = generator.config
    taps = generator.tap_specs
    return {
        "path": str(path),
        "kind": kind,
        "architecture": generator.architecture,
        "networks": networks,
        "resolution": config.resolution,
        "image_channels": config.image_channels,
        "z_dim": config.z_dim,
        "w_dim": config.w_dim,
        "c_dim": config.c_dim,
        "num_ws": config.num_ws,
        "mapping_layers": config.mapping_layers,
        "conv_clamp": _conv_clamp_of(generator),
        "num_parameters": sum(parameter.numel() for parameter in generator.parameters()),
        "num_features": sum(tap.channels for tap in taps),
        "taps": [
            {"name": tap.name, "channels": tap.channels, "resolution": tap.resolution, "w": w}
            for tap, w in zip(taps, generator.tap_ws, strict=True)
        ],
    }


def _conv_clamp_of(generator: AnyGenerator) -> float | None:
    """Bound of the feature maps; the smallest if layers differ, None if there is none."""
    if isinstance(generator, Generator):
        return generator.config.conv_clamp
    if isinstance(generator, StyleGAN3Generator):
        bounds = [layer.conv_clamp for layer in generator.config.layers if layer.conv_clamp is not None]
        return min(bounds, default=None)
    return None


def _networks_in(content: object) -> list[str]:
    """Names of all networks of a snapshot that are there; none where the file is one bare network."""
    if isinstance(content, dict):
        return [
            name[:40]
            for name, value in content.items()
            if isinstance(name, str) and (isinstance(value, ModuleRecord | TflibNetwork) or _is_state_dict(value))
        ]
    parts = content if isinstance(content, tuple | list) else []
    return [part.name[:40] for part in parts if isinstance(part, TflibNetwork)]


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(part, np.ndarray) for part in value.values())


Make = Callable[[Array | None], AnyGenerator]


def _recognise(content: object, path: Path) -> tuple[str, Make]:
    """Say what kind of generator a file holds, and how it is made with a mean w that was given."""
    if isinstance(content, dict):
        content = _without_wrapper(content)
        averaged = content.get("g_ema")
        if isinstance(averaged, dict):
            averaged = _without_wrapper(averaged)
            stored = content.get("latent_avg")
            return "rosinality StyleGAN2", lambda mean: rosinality.generator_from_state_dict(
                _arrays(averaged, path), _as_array(stored, path) if mean is None else mean, path
            )
        for name in AVERAGED:
            if isinstance(content.get(name), dict | ModuleRecord):
                return _recognise(content[name], path)
        if content.keys() >= BARE_ROSINALITY:
            return "rosinality StyleGAN2", lambda mean: rosinality.generator_from_state_dict(
                _arrays(content, path), mean, path
            )
        if any(str(name).startswith("g_synthesis.") for name in content):
            return "DatasetGAN StyleGAN1", lambda mean: stylegan1_from_state_dict(
                _arrays(content, path), mean_latent=mean
            )
        if "model_state_dict" in content:
            raise CheckpointError(
                f"{path} holds a pixel classifier of DatasetGAN, expected a generator: {KINDS}, and the folder of the "
                "classifiers to import-interpreter",
                field="path",
            )
    if isinstance(content, ModuleRecord) and "synthesis" in content.modules:
        is_third = "input" in content.modules["synthesis"].modules
        kind = "NVIDIA StyleGAN3" if is_third else "NVIDIA StyleGAN2"
        make = stylegan3.generator_from_record if is_third else stylegan2.generator_from_record
        return kind, _without_mean(lambda: make(content, path), path)
    network = find_generator(content)
    if network is not None:
        is_first = is_stylegan1(network)
        convert = stylegan1_from_network if is_first else stylegan2_from_network
        kind = "TensorFlow StyleGAN1" if is_first else "TensorFlow StyleGAN2"
        return kind, _without_mean(lambda: convert(network, path), path)
    if any(isinstance(part, TflibNetwork) for part in (content if isinstance(content, tuple | list) else [content])):
        raise CheckpointError(
            f"{path} holds TensorFlow networks, none of which has a mapping and a synthesis network, expected {KINDS}",
            field="path",
        )
    held = f"a {type(content).__name__}"
    if isinstance(content, dict):
        held = f"a dict of {len(content)} entries, {[str(name)[:40] for name in content][:8]} first"
    raise CheckpointError(f"{path} holds no generator but {held}, expected {KINDS}", field="path")


def _without_wrapper(content: dict[object, object]) -> dict[object, object]:
    """Take `module.` off the keys if all of them have it."""
    if not content or not all(isinstance(name, str) and name.startswith(DATA_PARALLEL) for name in content):
        return content
    return {str(name).removeprefix(DATA_PARALLEL): value for name, value in content.items()}


def _without_mean(make: Callable[[], AnyGenerator], path: Path) -> Make:
    """For files that hold a mean w: refuse another one."""

    def make_with_mean(mean: Array | None) -> AnyGenerator:
        if mean is not None:
            raise CheckpointError(
                f"mean_latent was given, but {path} holds a mean w; leave it out", field="mean_latent"
            )
        return make()

    return make_with_mean


def _as_array(value: object, path: Path) -> Array | None:
    if value is not None and not isinstance(value, np.ndarray):
        raise CheckpointError(
            f"latent_avg in {path} is a {type(value).__name__}, expected an array", field="latent_avg"
        )
    return value


def _arrays(content: Mapping[object, object], path: Path) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise CheckpointError(
                f"{str(name)[:60]} in {path} is a {type(value).__name__}, expected an array; give a state dict",
                field="path",
            )
        arrays[name] = value
    return arrays


def _read_mean(path: Path) -> Array:
    try:
        array = read_npy(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; give a .npy file", field="mean_latent") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is no .npy file ({error}); save one with numpy", field="mean_latent") from error
    if array.dtype.kind != "f":
        raise CheckpointError(
            f"{path} holds {array.dtype}, expected floating-point numbers; save some with numpy", field="mean_latent"
        )
    if array.ndim < 2 or not 0 < array.size <= MAX_MEAN_NUMBERS:
        return array
    rows = array.reshape(-1, array.shape[-1])  # DatasetGAN's avg_latent_stylegan1.npy: [18, 512], all rows the same
    return rows[0] if np.array_equal(rows, np.broadcast_to(rows[0], rows.shape)) else array
