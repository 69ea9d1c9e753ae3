"""StyleGAN2 generators out of the pickles of NVIDIA's two programs and out of rosinality's state dicts.

Widths, depth and architecture are read from the shapes and attributes. A fork that computes something else is refused
rather than painted wrongly.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from labelmint_export.checkpoints.completion import estimate_w_avg, fixed_noise
from labelmint_export.checkpoints.fields import RecordReader, check_linear
from labelmint_export.checkpoints.records import Array, ModuleRecord
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.config import MAX_MAPPING_LAYERS, MAX_RESOLUTION, GeneratorConfig
from labelmint_export.generator.layers import LRELU_GAIN, binomial_filter
from labelmint_export.generator.snapshots import check_tensors
from labelmint_export.generator.stylegan2 import Generator

ROSINALITY_LR_MULTIPLIER = 0.01


def to_float32(tensors: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Copy arrays out of a file.

    Raises:
        CheckpointError: One does not hold floating-point numbers.
    """
    copies = {}
    for name, array in tensors.items():
        if array.dtype.kind != "f":
            raise CheckpointError(
                f"{name} has dtype {array.dtype}, expected a floating-point one; take another snapshot", field=name
            )
        with np.errstate(over="ignore"):  # becomes infinite, which is refused later
            copies[name] = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    return copies


def make_generator(config: GeneratorConfig, tensors: Mapping[str, torch.Tensor], path: Path) -> Generator:
    """Make a generator, comparing shapes before any memory is taken.

    Raises:
        CheckpointError: A tensor is missing, left over, of another shape or not finite.
    """
    with torch.device("meta"):
        described = Generator(config)
    check_tensors(described, tensors, path)
    generator = Generator(config)
    generator.load_state_dict(dict(tensors))
    return generator.eval().requires_grad_(False)


# --- NVIDIA's pickles -------------------------------------------------------------------------------------------------


def _check_layer(layer: RecordReader, up: int, gain: float, conv_clamp: float | None) -> None:
    check_linear(layer.child("affine", "FullyConnectedLayer"), "linear", 1.0)
    layer.agree("activation", layer.value("activation"), "lrelu")
    layer.agree("up", layer.whole("up"), up)
    if not math.isclose(layer.real("act_gain"), gain, rel_tol=1e-6):
        layer.refuse("act_gain", f"is {layer.real('act_gain')}", f"{gain}")
    _check_clamp(layer, conv_clamp)


def _check_clamp(layer: RecordReader, conv_clamp: float | None) -> None:
    clamp = None if layer.value("conv_clamp") is None else layer.real("conv_clamp")
    layer.agree("conv_clamp", clamp, conv_clamp)


def _check_block(block: RecordReader, resolution: int, config: GeneratorConfig) -> None:
    block.agree("resolution", block.whole("resolution"), resolution)
    block.agree("architecture", block.value("architecture"), config.architecture)
    if resolution > 4:
        _check_layer(block.child("conv0", "SynthesisLayer"), 2, LRELU_GAIN, config.conv_clamp)
    _check_layer(block.child("conv1", "SynthesisLayer"), 1, LRELU_GAIN, config.conv_clamp)
    if config.architecture == "skip" or resolution == config.resolution:
        torgb = block.child("torgb", "ToRGBLayer")
        check_linear(torgb.child("affine", "FullyConnectedLayer"), "linear", 1.0)
        expected = 1.0 / math.sqrt(config.channels[resolution])
        if not math.isclose(torgb.real("weight_gain"), expected, rel_tol=1e-6):
            torgb.refuse("weight_gain", f"is {torgb.real('weight_gain')}", f"{expected}")
        _check_clamp(torgb, config.conv_clamp)
    if config.architecture == "resnet" and resolution > 4:
        skip = block.child("skip", "Conv2dLayer")
        skip.agree("activation", skip.value("activation"), "linear")
        skip.agree("up", skip.whole("up"), 2)


def config_from_record(record: ModuleRecord) -> GeneratorConfig:
    """Read the shape of a generator.

    Args:
        record: The pickled `Generator`, such as the snapshot's `G_ema`.

    Returns:
        The shape, checked.

    Raises:
        CheckpointError: Something is missing, of another type, out of range or contradicts something else; `field`
            names it, such as `synthesis.b8.conv0.up`.
    """
    root = RecordReader(record)
    root.agree("class_name", record.class_name, "Generator")
    mapping, synthesis = root.child("mapping", "MappingNetwork"), root.child("synthesis", "SynthesisNetwork")
    resolution = synthesis.whole("img_resolution")
    if not 8 <= resolution <= MAX_RESOLUTION or resolution & (resolution - 1):
        synthesis.refuse("img_resolution", f"is {resolution}", f"a power of two from 8 to {MAX_RESOLUTION}")
    blocks = {2**i: synthesis.child(f"b{2**i}", "SynthesisBlock") for i in range(2, resolution.bit_length())}
    first = blocks[8]
    layers = mapping.whole("num_layers")
    if not 1 <= layers <= MAX_MAPPING_LAYERS:
        mapping.refuse("num_layers", f"is {layers}", f"1 to {MAX_MAPPING_LAYERS}")
    c_dim = mapping.whole("c_dim")
    lr_multiplier = mapping.child("fc0", "FullyConnectedLayer").real("bias_gain")
    widths = []
    for index in range(layers):
        layer = mapping.child(f"fc{index}", "FullyConnectedLayer")
        check_linear(layer, "lrelu", lr_multiplier)
        widths.append(layer.shape("weight", 2)[0])
    embed = mapping.child("embed", "FullyConnectedLayer") if c_dim else None
    if embed is not None:
        check_linear(embed, "linear", 1.0)
    conv0 = first.child("conv0", "SynthesisLayer")
    try:
        config = GeneratorConfig(
            resolution=resolution,
            channels={r: block.child("conv1", "SynthesisLayer").shape("weight", 4)[0] for r, block in blocks.items()},
            z_dim=mapping.whole("z_dim"),
            w_dim=mapping.whole("w_dim"),
            c_dim=c_dim,
            mapping_layers=layers,
            image_channels=synthesis.whole("img_channels"),
            architecture=str(first.value("architecture")),  # type: ignore[arg-type]  # the config checks the name
            conv_clamp=None if conv0.value("conv_clamp") is None else conv0.real("conv_clamp"),
            embed_dim=None if embed is None else embed.shape("weight", 2)[0],
            hidden_dim=widths[0] if layers > 1 else None,
            mapping_lr_multiplier=lr_multiplier,
        )
    except GeneratorError as error:
        raise CheckpointError(str(error), field=error.field) from error
    for r, block in blocks.items():
        _check_block(block, r, config)
    for network in (mapping, synthesis):
        network.agree("num_ws", network.whole("num_ws"), config.num_ws)
        network.agree("w_dim", network.whole("w_dim"), config.w_dim)
    return config


def _rename_nvidia(tensors: Mapping[str, torch.Tensor], config: GeneratorConfig) -> dict[str, torch.Tensor]:
    """Give NVIDIA's tensors our names, without the filters that no layer uses."""
    renamed = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"mapping\.fc(\d+)\.(.+)", name):
            renamed[f"mapping.layers.{match[1]}.{match[2]}"] = tensor
            continue
        match = re.fullmatch(r"synthesis\.b(\d+)\.(.+)", name)
        if match is None:
            renamed[name] = tensor
            continue
        r, rest = int(match[1]), match[2]
        if rest == "const":
            rest = "constant_input"
        elif rest.startswith("conv1.resample_filter") or (r == 4 and rest == "resample_filter"):
            continue
        elif re.fullmatch(r"(conv0|conv1|torgb)\.(weight|resample_filter)", rest):
            layer, rest = rest.split(".")
            rest = f"{layer}.conv.{rest}"
        renamed[f"synthesis.blocks.b{r}.{rest}"] = tensor
    for r in config.block_resolutions:
        for layer in ("conv1",) if r == 4 else ("conv0", "conv1"):
            start = f"synthesis.blocks.b{r}.{layer}"
            renamed.setdefault(f"{start}.noise_strength", torch.zeros([]))  # use_noise is off
            renamed.setdefault(f"{start}.noise_const", torch.zeros(r, r))
    return renamed


def generator_from_record(record: ModuleRecord, path: Path) -> Generator:
    """Make the generator that a pickle of StyleGAN2-ADA or of the StyleGAN3 programs holds.

    Args:
        record: The pickled `Generator`, such as the snapshot's `G_ema`.
        path: Where it comes from, for the errors.

    Returns:
        The generator in evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: The record holds no StyleGAN2 generator, or one whose tensors do not fit its attributes.
    """
    config = config_from_record(record)
    return make_generator(config, _rename_nvidia(to_float32(record.tensors()), config), path)


# --- rosinality's state dicts -----------------------------------------------------------------------------------------


def _shape_of(tensors: Mapping[str, torch.Tensor], name: str, ndim: int) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"g_ema has no {name}, expected a StyleGAN2 of rosinality's program", field=name)
    shape = tuple(tensors[name].shape)
    if len(shape) != ndim:
        raise CheckpointError(f"{name} has shape {list(shape)}, expected {ndim} axes", field=name)
    return shape


def _config_from_rosinality(tensors: Mapping[str, torch.Tensor]) -> GeneratorConfig:
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
            mapping_lr_multiplier=ROSINALITY_LR_MULTIPLIER,
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


def generator_from_rosinality(g_ema: Mapping[str, Array], latent_avg: Array | None, path: Path) -> Generator:
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
    config = _config_from_rosinality(tensors)
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
    generator = make_generator(config, renamed, path)
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
