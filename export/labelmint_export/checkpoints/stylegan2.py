"""StyleGAN2 generators out of the pickles of NVIDIA's two programs, once these are plain records.

Widths, depth and architecture are read from the shapes and attributes. A fork that computes something else is refused
rather than painted wrongly.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from labelmint_export.checkpoints.completion import check_noise_side
from labelmint_export.checkpoints.fields import RecordReader
from labelmint_export.checkpoints.nvidia import check_linear, check_networks, read_mapping, rename_mapping
from labelmint_export.checkpoints.records import Array, ModuleRecord
from labelmint_export.checkpoints.tensors import fill_from_arrays
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.config import MAX_RESOLUTION, GeneratorConfig
from labelmint_export.generator.layers import LRELU_GAIN
from labelmint_export.generator.stylegan2 import Generator


def _check_layer(layer: RecordReader, up: int, conv_clamp: float | None) -> None:
    check_linear(layer.child("affine", "FullyConnectedLayer"), "linear", 1.0)
    layer.agree("activation", layer.value("activation"), "lrelu")
    layer.agree("up", layer.whole("up"), up)
    if not math.isclose(layer.real("act_gain"), LRELU_GAIN, rel_tol=1e-6):
        layer.refuse("act_gain", f"is {layer.real('act_gain')}", f"{LRELU_GAIN}")
    _check_clamp(layer, conv_clamp)


def _check_clamp(layer: RecordReader, conv_clamp: float | None) -> None:
    clamp = None if layer.value("conv_clamp") is None else layer.real("conv_clamp")
    layer.agree("conv_clamp", clamp, conv_clamp)


def _check_block(block: RecordReader, resolution: int, config: GeneratorConfig) -> None:
    block.agree("resolution", block.whole("resolution"), resolution)
    block.agree("architecture", block.value("architecture"), config.architecture)
    if resolution > 4:
        _check_layer(block.child("conv0", "SynthesisLayer"), 2, config.conv_clamp)
    _check_layer(block.child("conv1", "SynthesisLayer"), 1, config.conv_clamp)
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
    conv0 = first.child("conv0", "SynthesisLayer")
    try:
        config = GeneratorConfig(
            resolution=resolution,
            channels={r: block.child("conv1", "SynthesisLayer").shape("weight", 4)[0] for r, block in blocks.items()},
            **read_mapping(mapping),
            image_channels=synthesis.whole("img_channels"),
            architecture=first.text("architecture"),  # type: ignore[arg-type]  # the config checks the name
            conv_clamp=None if conv0.value("conv_clamp") is None else conv0.real("conv_clamp"),
        )
    except GeneratorError as error:
        raise CheckpointError(str(error), field=error.field) from error
    for r, block in blocks.items():
        _check_block(block, r, config)
    check_networks(mapping, synthesis, config)
    return config


def _rename_tensors(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Give NVIDIA's tensors our names, without the filters that no layer uses."""
    renamed = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"synthesis\.b([1-9][0-9]{0,4})\.(.+)", name)
        if match is None:
            renamed[rename_mapping(name)] = array
            continue
        r, rest = int(match[1]), match[2]
        if rest == "const":
            rest = "constant_input"
        elif rest.startswith("conv1.resample_filter") or (r == 4 and rest == "resample_filter"):
            continue
        elif re.fullmatch(r"(conv0|conv1|torgb)\.(weight|resample_filter)", rest):
            layer, rest = rest.split(".")
            rest = f"{layer}.conv.{rest}"
        is_blur = rest == "conv0.conv.resample_filter" and array.ndim == 2
        # Their programs turn the filter by 180 degrees, our blur does not.
        renamed[f"synthesis.blocks.b{r}.{rest}"] = array[::-1, ::-1] if is_blur else array
    return renamed


def _without_noise(arrays: Mapping[str, Array], config: GeneratorConfig) -> dict[str, Callable[[], torch.Tensor]]:
    """Say how to make the noise of layers that have none, because use_noise is off."""
    absent: dict[str, Callable[[], torch.Tensor]] = {}
    for layer, side in config.layer_sides.items():
        strength, noise = (f"synthesis.blocks.{layer}.{part}" for part in ("noise_strength", "noise_const"))
        if strength not in arrays:
            absent[strength] = partial(torch.zeros, [])
        if noise not in arrays:
            check_noise_side(noise, side)
            absent[noise] = partial(torch.zeros, [side, side])
    return absent


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
    arrays = _rename_tensors(record.tensors())
    return fill_from_arrays(lambda: Generator(config), arrays, path, _without_noise(arrays, config))
