"""StyleGAN1 generators out of TensorFlow pickles.

Legend: r resolution of a block, I and O channels, D w_dim.
"""

import math
from pathlib import Path

import numpy as np
import torch

from labelmint_export.checkpoints.fields import show
from labelmint_export.checkpoints.records import TflibNetwork
from labelmint_export.checkpoints.tensors import fill_from_arrays
from labelmint_export.checkpoints.tflib import Floats, NetworkReader, is_label_concatenated, read_mapping, take_mapping
from labelmint_export.errors import CheckpointError, GeneratorError
from labelmint_export.generator.layers import LRELU_GAIN, binomial_filter
from labelmint_export.generator.stylegan1 import FUSED_RESOLUTION, StyleGAN1Config, StyleGAN1Generator

NORM_EPSILON = 1e-8
"""Of the original; DatasetGAN's program, by which the same weights travel as `.pt`, has torch's 1e-5."""
MAX_TAP = 1e6
"""Magnitude of a number in the blur filter; the original's are 1 and 2."""
REQUIRED = {
    "nonlinearity": "lrelu",
    "use_styles": True,
    "const_input_layer": True,
    "use_pixel_norm": False,
    "use_instance_norm": True,
}
"""Options of the original program that would change the pictures, and what is computed here."""


class _Layers:
    """Takes the layers of a synthesis network; knows how the weights were scaled and how blocks upsample."""

    def __init__(self, reader: NetworkReader, config: StyleGAN1Config) -> None:
        self.reader = reader
        self.config = config
        self.scaled = reader.flag("use_wscale", default=True)
        fused = reader.option("fused_scale", "auto")
        if not isinstance(fused, str | bool) or fused not in ("auto", True, False):
            reader.refuse("fused_scale", f"is {show(fused)}", "auto, True or False")
        self.fused = fused

    def unscale(self, weight: Floats, fan_in: int, gain: float) -> Floats:
        """Undo our scale at run time where the network has none of its own."""
        return weight if self.scaled else weight * np.float32(math.sqrt(fan_in) / gain)

    def convolution(self, scope: str, shape: tuple[int, int, int], gain: float = LRELU_GAIN) -> Floats:
        """A convolution's weight as [O, I, k, k]."""
        kernel, in_channels, out_channels = shape
        weight = self.reader.take(f"{scope}/weight", (kernel, kernel, in_channels, out_channels))
        return self.unscale(weight.transpose(3, 2, 0, 1), in_channels * kernel**2, gain)

    def upsampling(self, scope: str, shape: tuple[int, int, int], r: int) -> Floats:
        """Likewise, of the convolution that doubles the resolution to r.

        The module turns weights below 128 x 128, where the original repeats pixels by default. A network that was built
        to do the other thing gets the turn taken back.
        """
        weight = self.convolution(scope, shape)
        usual = r >= FUSED_RESOLUTION
        return weight if self.fused in ("auto", usual) else weight[:, :, ::-1, ::-1]

    def epilogue(self, scope: str, target: str, index: int, r: int) -> dict[str, Floats]:
        """Noise and style behind a layer; its bias goes to the layer in front, which is the same sum."""
        width, w_dim = self.config.channels[r], self.config.w_dim
        fixed = self.reader.noise(index, r)
        strength = np.zeros(width, np.float32) if fixed is None else self.reader.take(f"{scope}/Noise/weight", (width,))
        style = self.reader.take(f"{scope}/StyleMod/weight", (w_dim, 2 * width)).T
        return {
            f"{target}.noise_const": np.zeros((r, r), np.float32) if fixed is None else fixed,
            f"{target}.noise_strength": strength,
            f"{target}.affine.weight": self.unscale(style, w_dim, 1.0),
            f"{target}.affine.bias": self.reader.take(f"{scope}/StyleMod/bias", (2 * width,)),
        }


def _config(reader: NetworkReader) -> StyleGAN1Config:
    for name, expected in REQUIRED.items():
        reader.require(name, expected)
    try:
        return StyleGAN1Config(
            resolution=max(channels := reader.block_channels()),
            channels=channels,
            **read_mapping(reader),
            joint_normalization=is_label_concatenated(reader),
            image_channels=reader.shape("synthesis/ToRGB_lod0/weight", 4)[3],
            norm_epsilon=NORM_EPSILON,
        )
    except GeneratorError as error:
        raise CheckpointError(f"{reader.path} holds no StyleGAN1: {error}", field=error.field) from error


def _blur_filter(reader: NetworkReader) -> torch.Tensor:
    """The filter behind every upsampling, float32 [3, 3]; one pixel where the network blurs nothing."""
    value = reader.option("blur_filter", [1, 2, 1])
    line = [0, 1, 0] if value is None else list(value) if isinstance(value, list | tuple) else []
    if len(line) != 3 or not all(type(tap) in (int, float) and abs(tap) < MAX_TAP for tap in line) or sum(line) == 0:
        reader.refuse("blur_filter", f"is {show(value)}", "three numbers that do not cancel out, or None")
    return binomial_filter(tuple(float(tap) for tap in line))


def stylegan1_from_network(network: TflibNetwork, path: Path) -> StyleGAN1Generator:
    """Make the generator that a TensorFlow network holds.

    Args:
        network: Of build function `G_style`, such as the snapshot's `Gs`.
        path: Where it comes from, for the errors.

    Returns:
        The generator in evaluation mode, float32, on the CPU, without gradients; its mean w and fixed noise are the
        stored ones.

    Raises:
        CheckpointError: A variable is missing, left over, of another shape or not finite, the training had not grown
            to full size, or the network was built with an option that is not known; `field` names it.
    """
    reader = NetworkReader(network, path)
    config = _config(reader)
    shape = read_mapping(reader)
    layers = _Layers(reader, config)
    tensors = take_mapping(reader, shape)
    for name in [name for name in tensors if name.startswith("mapping.layers.") and name.endswith(".weight")]:
        tensors[name] = layers.unscale(tensors[name], tensors[name].shape[1], LRELU_GAIN)
    blur = _blur_filter(reader).numpy()
    incoming = config.channels[4]
    for index, r in enumerate(config.block_resolutions):
        width, scope, block = config.channels[r], f"synthesis/{r}x{r}", f"synthesis.blocks.b{r}"
        first, second = (f"{scope}/Const", f"{scope}/Conv") if r == 4 else (f"{scope}/Conv0_up", f"{scope}/Conv1")
        if r == 4:
            tensors[f"{block}.constant_input"] = reader.take(f"{first}/const", (1, width, 4, 4))[0]
            tensors[f"{block}.bias"] = reader.take(f"{first}/bias", (width,))
        else:
            tensors[f"{block}.conv0.weight"] = layers.upsampling(first, (3, incoming, width), r)
            tensors[f"{block}.conv0.bias"] = reader.take(f"{first}/bias", (width,))
            tensors[f"{block}.conv0.blur_filter"] = blur
        tensors[f"{block}.conv1.weight"] = layers.convolution(second, (3, width, width))
        tensors[f"{block}.conv1.bias"] = reader.take(f"{second}/bias", (width,))
        tensors |= layers.epilogue(first, f"{block}.epi1", 2 * index, r)
        tensors |= layers.epilogue(second, f"{block}.epi2", 2 * index + 1, r)
        incoming = width
    colours = (1, incoming, config.image_channels)
    tensors["synthesis.torgb.weight"] = layers.convolution("synthesis/ToRGB_lod0", colours, gain=1.0)
    tensors["synthesis.torgb.bias"] = reader.take("synthesis/ToRGB_lod0/bias", (config.image_channels,))
    reader.check_grown("lod")
    stages = range(1, len(config.block_resolutions))
    reader.ignore(f"synthesis/ToRGB_lod{stage}/{part}" for stage in stages for part in ("weight", "bias"))
    reader.ignore(["synthesis/lod"])
    reader.finish()
    return fill_from_arrays(lambda: StyleGAN1Generator(config), tensors, path)
