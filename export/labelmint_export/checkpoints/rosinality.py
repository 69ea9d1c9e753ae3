"""StyleGAN2 generators out of the state dicts of rosinality's program. Widths and depth are read from the shapes."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from labelmint_export.checkpoints.completion import check_noise_side, draw_noise, estimate_w_avg
from labelmint_export.checkpoints.records import Array
from labelmint_export.checkpoints.tensors import check_floating, fill_from_arrays, to_float32
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.config import MAX_MAPPING_LAYERS, MAX_RESOLUTION, GeneratorConfig
from labelmint_export.generator.layers import binomial_filter
from labelmint_export.generator.stylegan2 import Generator

LR_MULTIPLIER = 0.01
LAYER_PARTS = {
    "conv.weight": "conv.weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "conv.blur.kernel": "conv.resample_filter",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
    "upsample.kernel": "../resample_filter",
}
"""Names of a layer's tensors in rosinality's program and here."""


def _shape_of(arrays: Mapping[str, Array], name: str, ndim: int) -> tuple[int, ...]:
    if name not in arrays:
        raise CheckpointError(f"g_ema has no {name}, expected a StyleGAN2 of rosinality's program", field=name)
    shape = arrays[name].shape
    if len(shape) != ndim:
        raise CheckpointError(f"{name} has shape {list(shape)}, expected {ndim} axes", field=name)
    return shape


def _config_from_shapes(arrays: Mapping[str, Array]) -> GeneratorConfig:
    layers = 0
    while f"style.{layers + 1}.weight" in arrays and layers < MAX_MAPPING_LAYERS:
        layers += 1
    w_dim, z_dim = _shape_of(arrays, "style.1.weight", 2)
    blocks = 0
    channels = {4: _shape_of(arrays, "conv1.conv.weight", 5)[1]}
    while f"convs.{2 * blocks + 1}.conv.weight" in arrays and 8 * 2**blocks <= MAX_RESOLUTION:
        channels[8 * 2**blocks] = _shape_of(arrays, f"convs.{2 * blocks + 1}.conv.weight", 5)[1]
        blocks += 1
    try:
        return GeneratorConfig(
            resolution=4 * 2**blocks,
            channels=channels,
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=layers,
            image_channels=_shape_of(arrays, "to_rgb1.conv.weight", 5)[1],
            mapping_lr_multiplier=LR_MULTIPLIER,
        )
    except GeneratorError as error:
        raise CheckpointError(str(error), field=error.field) from error


def _without_first_axis(array: Array) -> Array:
    return array[0] if array.ndim > 1 and array.shape[0] == 1 else array


def _rename_layer(source: str, target: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """Take one layer's arrays out of rosinality's and give them our names and axes.

    An array of other axes than his keeps them, and is refused when shapes are compared.
    """
    renamed = {}
    for theirs, ours in LAYER_PARTS.items():
        array = arrays.pop(f"{source}.{theirs}", None)
        if array is None:
            continue
        if theirs.endswith("kernel") and array.shape == (4, 4):
            array = array.astype(np.float32) / np.float32(4)  # stored with the gain of upsampling
            if theirs == "conv.blur.kernel":
                array = array[::-1, ::-1]  # that program turns it, our blur does not
        elif theirs == "conv.weight":
            array = _without_first_axis(array)
        elif theirs == "noise.weight" and array.shape == (1,):
            array = array.reshape(())
        elif theirs == "bias" and array.ndim == 4 and array.size == array.shape[1]:
            array = array[0, :, 0, 0]
        name = f"{target}.{ours}" if not ours.startswith("../") else f"{target.rpartition('.')[0]}.{ours[3:]}"
        renamed[name] = array
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
    check_floating(g_ema)
    config = _config_from_shapes(g_ema)
    arrays, absent = _rename(dict(g_ema), config)
    mean = None if latent_avg is None else _mean_w(latent_avg, config.w_dim, path)
    generator = fill_from_arrays(lambda: Generator(config), arrays, path, absent)
    if mean is None:
        estimate_w_avg(generator.mapping, config.z_dim)
    else:
        generator.mapping.w_avg.copy_(mean)
    return generator


def _rename(
    arrays: dict[str, Array], config: GeneratorConfig
) -> tuple[dict[str, Array], dict[str, Callable[[], torch.Tensor]]]:
    """Give rosinality's arrays, which are used up, our names; and say how to make what they leave out."""
    renamed: dict[str, Array] = {"mapping.w_avg": np.zeros(config.w_dim, np.float32)}
    absent: dict[str, Callable[[], torch.Tensor]] = {}
    for index in range(config.mapping_layers):
        for part in ("weight", "bias"):
            array = arrays.pop(f"style.{index + 1}.{part}", None)
            if array is not None:
                renamed[f"mapping.layers.{index}.{part}"] = array
    constant_input = arrays.pop("input.input", None)
    if constant_input is not None:
        renamed["synthesis.blocks.b4.constant_input"] = _without_first_axis(constant_input)
    for index, (name, side) in enumerate(config.layer_sides.items()):
        block, layer = name.split(".")
        target = f"synthesis.blocks.{block}.{layer}"
        renamed |= _rename_layer("conv1" if index == 0 else f"convs.{index - 1}", target, arrays)
        noise = arrays.pop(f"noises.noise_{index}", None)
        if noise is None:
            check_noise_side(f"noises.noise_{index}", side)
            absent[f"{target}.noise_const"] = partial(draw_noise, index, side)
        else:
            renamed[f"{target}.noise_const"] = noise[0, 0] if noise.shape == (1, 1, side, side) else noise
        if layer == "conv1":
            source = "to_rgb1" if index == 0 else f"to_rgbs.{index // 2 - 1}"
            renamed |= _rename_layer(source, f"synthesis.blocks.{block}.torgb", arrays)
    renamed |= arrays  # what has no place is refused by its name
    for r in config.block_resolutions[1:]:
        for name in (f"synthesis.blocks.b{r}.conv0.conv.resample_filter", f"synthesis.blocks.b{r}.resample_filter"):
            renamed.setdefault(name, binomial_filter().numpy())
    return renamed, absent


def _mean_w(latent_avg: Array, w_dim: int, path: Path) -> torch.Tensor:
    check_floating({"latent_avg": latent_avg})
    mean = to_float32(latent_avg).reshape(-1) if latent_avg.size == w_dim else None
    if mean is None or not bool(torch.isfinite(mean).all()):
        raise CheckpointError(
            f"latent_avg in {path} has shape {list(latent_avg.shape)}, expected {w_dim} finite numbers",
            field="latent_avg",
        )
    return mean
