"""StyleGAN2 generators out of TensorFlow pickles: StyleGAN2's program (all configurations), and StyleGAN2-ADA's.

Legend: r resolution of a block, I and O channels.
"""

from pathlib import Path

import numpy as np

from labelmint_export.checkpoints.records import TflibNetwork
from labelmint_export.checkpoints.tensors import fill_from_arrays
from labelmint_export.checkpoints.tflib import (
    Floats,
    NetworkReader,
    is_label_concatenated,
    read_mapping,
    take_mapping,
)
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.config import GeneratorConfig
from labelmint_export.generator.layers import binomial_filter
from labelmint_export.generator.stylegan2 import Generator


def _convolution(reader: NetworkReader, scope: str, shape: tuple[int, int, int], *, flip: bool) -> Floats:
    """A convolution's weight as [O, I, k, k].

    TensorFlow's upsampling convolution turns its kernel by 180 degrees, the transposed convolution of torch does not.
    """
    kernel, in_channels, out_channels = shape
    weight = reader.take(f"{scope}/weight", (kernel, kernel, in_channels, out_channels))
    return (weight[::-1, ::-1] if flip else weight).transpose(3, 2, 0, 1)


def _modulated(
    reader: NetworkReader, scope: str, shape: tuple[int, int, int], w_dim: int, *, flip: bool = False
) -> dict[str, Floats]:
    """A modulated convolution under our names, which are the same for the styled ones and for the colours'."""
    _, in_channels, out_channels = shape
    return {
        "conv.weight": _convolution(reader, scope, shape, flip=flip),
        "affine.weight": reader.take(f"{scope}/mod_weight", (w_dim, in_channels)).T,
        "affine.bias": reader.take(f"{scope}/mod_bias", (in_channels,)) + np.float32(1),  # stored without the one
        "bias": reader.take(f"{scope}/bias", (out_channels,)),
    }


def _noise(reader: NetworkReader, scope: str, index: int, side: int) -> dict[str, Floats]:
    """Strength and fixed noise of a layer, zeros for a network without noise."""
    fixed = reader.noise(index, side)
    if fixed is None:
        return {"noise_const": np.zeros((side, side), np.float32), "noise_strength": np.zeros((), np.float32)}
    return {"noise_const": fixed, "noise_strength": reader.take(f"{scope}/noise_strength", ())}


def _config(reader: NetworkReader) -> GeneratorConfig:
    reader.require("nonlinearity", "lrelu")
    reader.require("resample_kernel", [1, 3, 3, 1])
    channels = reader.block_channels()
    resolution = max(channels)
    grown = reader.has("synthesis/ToRGB_lod0/weight")  # configurations B to D: no sums, but one picture a stage
    colours = f"synthesis/{'ToRGB_lod0' if grown else f'{resolution}x{resolution}/ToRGB'}/weight"
    clamp = reader.option("conv_clamp", None)
    architecture = "orig" if grown else reader.text("architecture", "skip")
    try:
        return GeneratorConfig(
            resolution=resolution,
            channels=channels,
            **read_mapping(reader),
            joint_normalization=is_label_concatenated(reader),
            image_channels=reader.shape(colours, 4)[3],
            architecture=architecture,  # type: ignore[arg-type]  # the config checks the name
            conv_clamp=None if clamp is None else reader.real("conv_clamp", 256.0),
        )
    except GeneratorError as error:
        raise CheckpointError(f"{reader.path} holds no StyleGAN2: {error}", field=error.field) from error


def stylegan2_from_network(network: TflibNetwork, path: Path) -> Generator:
    """Make the generator that a TensorFlow network holds.

    Args:
        network: Of build function `G_main`, such as the snapshot's `Gs`.
        path: Where it comes from, for the errors.

    Returns:
        The generator in evaluation mode, float32, on the CPU, without gradients; its mean w and fixed noise are the
        stored ones.

    Raises:
        CheckpointError: A variable is missing, left over, of another shape or not finite, or the network was built
            with an option that is not known; `field` names it.
    """
    reader = NetworkReader(network, path)
    config = _config(reader)
    tensors = take_mapping(reader, read_mapping(reader))
    binomial = binomial_filter().numpy()
    incoming = config.channels[4]
    tensors["synthesis.blocks.b4.constant_input"] = reader.take("synthesis/4x4/Const/const", (1, incoming, 4, 4))[0]
    for r in config.block_resolutions:
        width, scope, block = config.channels[r], f"synthesis/{r}x{r}", f"synthesis.blocks.b{r}"
        layers = [("conv1", "Conv", width)] if r == 4 else [("conv0", "Conv0_up", incoming), ("conv1", "Conv1", width)]
        for name, theirs, channels in layers:
            up = name == "conv0"
            layer = _modulated(reader, f"{scope}/{theirs}", (3, channels, width), config.w_dim, flip=up)
            layer |= _noise(reader, f"{scope}/{theirs}", 2 * (r.bit_length() - 1) - (5 if up else 4), r)
            tensors |= {f"{block}.{name}.{part}": array for part, array in layer.items()}
        if r > 4:
            tensors |= {f"{block}.conv0.conv.resample_filter": binomial, f"{block}.resample_filter": binomial}
        if r > 4 and config.architecture == "resnet":
            tensors[f"{block}.skip.weight"] = _convolution(reader, f"{scope}/Skip", (1, incoming, width), flip=True)
            tensors[f"{block}.skip.resample_filter"] = binomial
        if config.architecture == "skip" or r == config.resolution:
            tensors |= _colours(reader, config, r)
        incoming = width
    _leave_out(reader, config)
    reader.finish()
    return fill_from_arrays(lambda: Generator(config), tensors, path)


def _colours(reader: NetworkReader, config: GeneratorConfig, r: int) -> dict[str, Floats]:
    grown = reader.has("synthesis/ToRGB_lod0/weight")
    scope = "synthesis/ToRGB_lod0" if grown else f"synthesis/{r}x{r}/ToRGB"
    parts = _modulated(reader, scope, (1, config.channels[r], config.image_channels), config.w_dim)
    return {f"synthesis.blocks.b{r}.torgb.{part}": array for part, array in parts.items()}


def _leave_out(reader: NetworkReader, config: GeneratorConfig) -> None:
    """Count what only the training needed as used: the stage, and the pictures of the smaller stages."""
    if reader.has("synthesis/ToRGB_lod0/weight"):
        reader.check_grown("lod")
    parts = ("weight", "mod_weight", "mod_bias", "bias")
    stages = range(1, len(config.block_resolutions))
    reader.ignore(f"synthesis/ToRGB_lod{stage}/{part}" for stage in stages for part in parts)
    reader.ignore(["lod", "synthesis/lod"])
