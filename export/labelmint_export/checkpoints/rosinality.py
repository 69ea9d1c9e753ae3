"""StyleGAN2 generators out of the state dicts of rosinality's program. Widths and depth are read from the shapes."""

from collections.abc import Mapping
from pathlib import Path

import torch

from labelmint_export.checkpoints.completion import estimate_w_avg, fixed_noise
from labelmint_export.checkpoints.records import Array
from labelmint_export.checkpoints.tensors import to_float32
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.config import MAX_MAPPING_LAYERS, MAX_RESOLUTION, GeneratorConfig
from labelmint_export.generator.layers import binomial_filter
from labelmint_export.generator.snapshots import fill_module
from labelmint_export.generator.stylegan2 import Generator

LR_MULTIPLIER = 0.01


def _shape_of(tensors: Mapping[str, torch.Tensor], name: str, ndim: int) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"g_ema has no {name}, expected a StyleGAN2 of rosinality's program", field=name)
    shape = tuple(tensors[name].shape)
    if len(shape) != ndim:
        raise CheckpointError(f"{name} has shape {list(shape)}, expected {ndim} axes", field=name)
    return shape


def _config_from_shapes(tensors: Mapping[str, torch.Tensor]) -> GeneratorConfig:
    layers = 0
    while f"style.{layers + 1}.weight" in tensors and layers < MAX_MAPPING_LAYERS:
        layers += 1
    w_dim, z_dim = _shape_of(tensors, "style.1.weight", 2)
    blocks = 0
    channels = {4: _shape_of(tensors, "conv1.conv.weight", 5)[1]}
    while f"convs.{2 * blocks + 1}.conv.weight" in tensors and 8 * 2**blocks <= MAX_RESOLUTION:
        channels[8 * 2**blocks] = _shape_of(tensors, f"convs.{2 * blocks + 1}.conv.weight", 5)[1]
        blocks += 1
    try:
        return GeneratorConfig(
            resolution=4 * 2**blocks,
            channels=channels,
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=layers,
            image_channels=_shape_of(tensors, "to_rgb1.conv.weight", 5)[1],
            mapping_lr_multiplier=LR_MULTIPLIER,
        )
    except GeneratorError as error:
        raise CheckpointError(str(error), field=error.field) from error


def _rename_layer(source: str, target: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take one layer's tensors out of rosinality's and give them our names and shapes."""
    renamed = {}
    parts = {
        "conv.weight": "conv.weight",
        "conv.modulation.weight": "affine.weight",
        "conv.modulation.bias": "affine.bias",
        "conv.blur.kernel": "conv.resample_filter",
        "noise.weight": "noise_strength",
        "activate.bias": "bias",
        "bias": "bias",
        "upsample.kernel": "../resample_filter",
    }
    for theirs, ours in parts.items():
        tensor = tensors.pop(f"{source}.{theirs}", None)
        if tensor is None:
            continue
        if theirs.endswith("kernel"):
            tensor = tensor / 4.0  # stored with the gain of upsampling
        elif theirs in ("conv.weight", "bias", "noise.weight"):
            tensor = tensor.reshape(tensor.shape[1:] if theirs == "conv.weight" else [-1] if theirs == "bias" else [])
        name = f"{target}.{ours}" if not ours.startswith("../") else f"{target.rpartition('.')[0]}.{ours[3:]}"
        renamed[name] = tensor
    return renamed


def generator_from_state_dict(g_ema: Mapping[str, Array], latent_avg: Array | None, path: Path) -> Generator:
    """Make the generator of a snapshot of rosinality's StyleGAN2.

    Args:
        g_ema: State dict of the averaged generator.
        latent_avg: [w_dim], the mean w; None estimates it from 8,000 latents.
        path: Where it comes from, for the errors.

    Returns:
        The generator in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: The tensors are not those of such a generator.
    """
    tensors = to_float32(g_ema)
    config = _config_from_shapes(tensors)
    renamed: dict[str, torch.Tensor] = {"mapping.w_avg": torch.zeros(config.w_dim)}
    for index in range(config.mapping_layers):
        for part in ("weight", "bias"):
            renamed[f"mapping.layers.{index}.{part}"] = tensors.pop(f"style.{index + 1}.{part}", torch.zeros([]))
    constant_input = tensors.pop("input.input", torch.zeros([1]))
    renamed["synthesis.blocks.b4.constant_input"] = constant_input.reshape(constant_input.shape[1:])
    noise = fixed_noise(config.layer_sides)
    for index, (name, side) in enumerate(config.layer_sides.items()):
        block, layer = name.split(".")
        target = f"synthesis.blocks.{block}.{layer}"
        renamed |= _rename_layer("conv1" if index == 0 else f"convs.{index - 1}", target, tensors)
        stored = tensors.pop(f"noises.noise_{index}", noise[name])
        renamed[f"{target}.noise_const"] = stored.reshape(side, side) if stored.numel() == side * side else stored
        if layer == "conv1":
            source = "to_rgb1" if index == 0 else f"to_rgbs.{index // 2 - 1}"
            renamed |= _rename_layer(source, f"synthesis.blocks.{block}.torgb", tensors)
    renamed |= tensors  # what has no place is refused by its name
    for r in config.block_resolutions[1:]:
        renamed.setdefault(f"synthesis.blocks.b{r}.conv0.conv.resample_filter", binomial_filter())
        renamed.setdefault(f"synthesis.blocks.b{r}.resample_filter", binomial_filter())
    generator = fill_module(lambda: Generator(config), renamed, path)
    if latent_avg is None:
        estimate_w_avg(generator.mapping, config.z_dim)
    else:
        mean = to_float32({"latent_avg": latent_avg})["latent_avg"].reshape(-1)
        if mean.shape != generator.mapping.w_avg.shape or not bool(torch.isfinite(mean).all()):
            raise CheckpointError(
                f"latent_avg in {path} has shape {list(latent_avg.shape)}, expected {config.w_dim} finite numbers",
                field="latent_avg",
            )
        generator.mapping.w_avg.copy_(mean)
    return generator
