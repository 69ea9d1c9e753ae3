"""The whole state of a training: weights, optimisers, random state, settings, counters. Written to disk and read back.

All of it is one file, `state.safetensors`, whose metadata hold the settings and counters as JSON: what is not a tensor
cannot be of another step than the tensors, whenever a write is cut off.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labelmint_export.errors import CheckpointError, TrainingError
from labelmint_export.gan.augment import AdaptiveProbability
from labelmint_export.gan.autoencoder import Encoder, decoding_parameters, make_adam
from labelmint_export.gan.codes import Codes, make_codes
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.discriminator import Discriminator
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import config_from_record, config_to_record
from labelmint_export.stored import load_weights, read_json, read_metadata, read_tensors, write_tensors

FILE_NAME = "state.safetensors"
RECORD = "record"
"""Name of the settings and counters in the file's metadata."""
FORMAT = "labelmint-gan-state"
FORMAT_VERSION = 1
CODE_TENSORS = ("w", "mean", "square")
ADAM_SHAPES: dict[str, torch.Size | None] = {"step": torch.Size([]), "exp_avg": None, "exp_avg_sq": None}
"""What Adam remembers of a parameter; None: of its shape."""
MUON_SHAPES: dict[str, torch.Size | None] = {"momentum_buffer": None}
"""Likewise Muon."""


@dataclass(slots=True)
class Autoencoding:
    """What reconstruction adds to a training."""

    encoder: Encoder
    optimizer: torch.optim.Adam
    """Of synthesis, without its noise, and the encoder."""


@dataclass(slots=True)
class TrainState:
    """What a step reads and changes."""

    config: TrainConfig
    generator: Generator
    discriminator: Discriminator
    ema: Generator
    generator_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam
    path_length_mean: torch.Tensor
    adaptive: AdaptiveProbability
    autoencoding: Autoencoding | None = None
    step: int = 0
    images_before: int = 0
    """Pictures seen at lower resolutions, before this one grew out of them."""
    mapping_fitted: bool = True
    """False while synthesis knows w from an encoder or from codes alone."""
    codes: Codes | None = None
    """From the stage of codes on."""
    pictures: str = ""
    """Fingerprint of the set that the steps have seen, as `train` takes it; empty: not known."""

    @property
    def images_seen(self) -> int:
        """Real pictures shown at this resolution."""
        return self.step * self.config.batch_size

    @property
    def has_judged(self) -> bool:
        """Whether the discriminator has learned: the last step was an adversarial one."""
        return self.images_seen - self.config.batch_size >= self.config.unfitted_images


def _make_adam(module: torch.nn.Module, config: TrainConfig, interval: int) -> torch.optim.Adam:
    """Make up for the step that lazy regularisation adds every `interval` (Karras et al. 2020, appendix B)."""
    ratio = interval / (interval + 1)
    return torch.optim.Adam(
        module.parameters(), lr=config.learning_rate * ratio, betas=(0.0, 0.99**ratio), eps=1e-8, foreach=True
    )


def make_state(config: TrainConfig, device: torch.device) -> TrainState:
    """Make the state of step 0 from the seed."""
    torch.manual_seed(config.seed)
    generator = Generator(config.generator)
    discriminator = Discriminator(config.generator, config.discriminator_channels)
    ema = Generator(config.generator)
    ema.load_state_dict(generator.state_dict())
    for module in (generator, discriminator, ema):
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
    ema.eval().requires_grad_(False)
    autoencoding = None
    if config.has_encoder:
        encoder = Encoder(config.generator, config.discriminator_channels)
        encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
        optimizer = make_adam([*decoding_parameters(generator), *encoder.parameters()], config.learning_rate)
        autoencoding = Autoencoding(encoder, optimizer)
    return TrainState(
        config=config,
        generator=generator,
        discriminator=discriminator,
        ema=ema,
        generator_optimizer=_make_adam(generator, config, config.path_length_interval),
        discriminator_optimizer=_make_adam(discriminator, config, config.r1_interval),
        path_length_mean=torch.zeros([], device=device),
        adaptive=AdaptiveProbability(target=config.ada_target, speed_images=config.ada_speed_images),
        autoencoding=autoencoding,
        mapping_fitted=config.unfitted_images == 0,
    )


def _optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.{index}.{name}": tensor
        for index, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def _restore_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], path: Path, *, stepped: bool
) -> None:
    record = optimizer.state_dict()
    record["state"] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shapes = ADAM_SHAPES if isinstance(optimizer, torch.optim.Adam) else MUON_SHAPES
    expected = {
        f"{prefix}.{index}.{name}": parameter.shape if shape is None else shape
        for index, parameter in enumerate(parameters)
        for name, shape in shapes.items()
    }
    found = {name: tensor.shape for name, tensor in tensors.items() if name.startswith(prefix + ".")}
    for name in sorted(expected.keys() | found.keys() if stepped else found):
        if found.get(name) != expected.get(name) or not bool(torch.isfinite(tensors[name]).all()):
            raise CheckpointError(
                f"{name} in {path} has shape {found.get(name)}, expected finite numbers of shape {expected.get(name)}; "
                "take an older copy or start anew",
                field=name,
            )
        _, index, moment = name.rsplit(".", 2)
        record["state"].setdefault(int(index), {})[moment] = tensors[name]
    optimizer.load_state_dict(record)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(prefix + ".")}


def save_state(state: TrainState, folder: Path) -> None:
    """Write everything a later process needs to go on bit for bit."""
    tensors = {f"generator.{k}": v for k, v in state.generator.state_dict().items()}
    tensors |= {f"discriminator.{k}": v for k, v in state.discriminator.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= _optimizer_tensors("generator_optimizer", state.generator_optimizer)
    tensors |= _optimizer_tensors("discriminator_optimizer", state.discriminator_optimizer)
    if state.autoencoding is not None:
        tensors |= {f"encoder.{k}": v for k, v in state.autoencoding.encoder.state_dict().items()}
        tensors |= _optimizer_tensors("autoencoder_optimizer", state.autoencoding.optimizer)
    if state.codes is not None:
        tensors |= {f"codes.{name}": getattr(state.codes, name) for name in CODE_TENSORS}
        tensors |= _optimizer_tensors("code_optimizer", state.codes.optimizer)
        tensors |= _optimizer_tensors("kernel_optimizer", state.codes.kernels)
    tensors["path_length_mean"] = state.path_length_mean
    tensors["random.cpu"] = torch.get_rng_state()
    if state.path_length_mean.is_cuda:
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    tensors["step"] = torch.tensor(state.step)
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config_to_json(state.config),
        "pictures": state.pictures,
        "step": state.step,
        "images_before": state.images_before,
        "mapping_fitted": state.mapping_fitted,
        "adaptive": {
            "p": state.adaptive.p,
            "sign_sum": float(state.adaptive.sign_sum),
            "sign_count": state.adaptive.sign_count,
        },
    }
    write_tensors(folder / FILE_NAME, tensors, {RECORD: json.dumps(record)})
    (folder / "state.json").unlink(missing_ok=True)  # of an earlier version, whose tensors are gone


def config_to_json(config: TrainConfig) -> dict[str, object]:
    """Turn settings into JSON's types."""
    record = dataclasses.asdict(config) | {"generator": config_to_record(config.generator)}
    record["discriminator_channels"] = {str(r): n for r, n in config.discriminator_channels.items()}
    return record


def config_from_json(record: object, path: Path) -> TrainConfig:
    """Turn JSON's types into settings.

    Raises:
        CheckpointError: A field is missing, unknown or of another type; `path` is where the record came from.
    """
    try:
        fields = dict(record)  # type: ignore[call-overload]  # parsed JSON of any shape: the errors are caught
        fields["generator"] = config_from_record(fields["generator"], path)
        fields["discriminator_channels"] = {int(r): int(n) for r, n in fields["discriminator_channels"].items()}
        return TrainConfig(**fields)
    except (KeyError, TypeError, ValueError, AttributeError, TrainingError) as error:
        raise CheckpointError(f"{path} describes no training ({error}); start anew", field="config") from error


def _read_record(folder: Path) -> dict[str, Any]:  # Any: parsed JSON, checked by the caller
    """Read settings and counters. Earlier versions had them in a file of their own.

    Raises:
        CheckpointError: There are none, or they are of another version.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no {FILE_NAME}, expected the --out of a training that train-gan began; give its path",
            field="path",
        )
    text = read_metadata(path).get(RECORD)
    try:
        record = read_json(folder / "state.json") if text is None else json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} describes no training ({error}); start anew", field="config") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path} is no state of this version; start the training anew", field="format")
    return record


def load_state(folder: Path, device: torch.device) -> TrainState:
    """Read a saved training and restore torch's random state.

    Raises:
        CheckpointError: The file is missing or malformed.
    """
    path = folder / FILE_NAME
    record = _read_record(folder)
    state = make_state(config_from_json(record.get("config"), path), device)
    tensors = read_tensors(path)
    step = tensors.get("step", torch.tensor(-1)).tolist()
    if step != record.get("step"):
        raise CheckpointError(
            f"{path} holds tensors of step {step} and settings of step {record.get('step')}: a write was cut off; take "
            "an older copy or start anew",
            field="step",
        )
    load_weights(state.generator, _part(tensors, "generator"), path)
    load_weights(state.discriminator, _part(tensors, "discriminator"), path)
    load_weights(state.ema, _part(tensors, "ema"), path)
    state.step = record["step"]
    judged = state.has_judged
    _restore_optimizer("generator_optimizer", state.generator_optimizer, tensors, path, stepped=judged)
    _restore_optimizer("discriminator_optimizer", state.discriminator_optimizer, tensors, path, stepped=judged)
    if state.autoencoding is not None:
        reconstructed = any(state.config.reconstructs_at(step) for step in range(record["step"]))
        load_weights(state.autoencoding.encoder, _part(tensors, "encoder"), path)
        _restore_optimizer("autoencoder_optimizer", state.autoencoding.optimizer, tensors, path, stepped=reconstructed)
    state.codes = _load_codes(state, tensors, path)
    try:
        state.path_length_mean.copy_(tensors["path_length_mean"])
        state.adaptive.p = float(record["adaptive"]["p"])
        state.adaptive.sign_sum = float(record["adaptive"]["sign_sum"])
        state.adaptive.sign_count = int(record["adaptive"]["sign_count"])
        state.step = int(record["step"])
        state.images_before = int(record["images_before"])
        state.mapping_fitted = bool(record["mapping_fitted"])
        state.pictures = str(record.get("pictures", ""))  # earlier files do not say
        torch.set_rng_state(tensors["random.cpu"])
        if device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} lacks a part of the state ({error!r}); take an older copy or start anew", field="state"
        ) from error
    return state


def _load_codes(state: TrainState, tensors: dict[str, torch.Tensor], path: Path) -> Codes | None:
    found = _part(tensors, "codes")
    if not found:
        return None
    w = found.get("w")
    shape = None if w is None else [len(w), state.config.generator.w_dim]
    for name in CODE_TENSORS:
        if name not in found or list(found[name].shape) != shape or not bool(torch.isfinite(found[name]).all()):
            raise CheckpointError(
                f"codes.{name} in {path} does not hold finite numbers of shape {shape}; take an older copy or start "
                "anew",
                field=f"codes.{name}",
            )
    device = state.path_length_mean.device
    codes = make_codes(found["w"].to(device), state.generator, state.config)
    codes.mean, codes.square = found["mean"].to(device), found["square"].to(device)
    _restore_optimizer("code_optimizer", codes.optimizer, tensors, path, stepped=True)
    _restore_optimizer("kernel_optimizer", codes.kernels, tensors, path, stepped=True)
    return codes
