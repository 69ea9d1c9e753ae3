"""Discriminators in the checkpoints of other programs, as far as features go: every block, without the last layers.

NVIDIA's PyTorch programs keep one as `D` (StyleGAN2-ADA's; StyleGAN3 trains against the same), rosinality's as `d`.
Theirs see the picture once, at the top, where ours (`gan.discriminator`) sees it at every resolution. The class of a
conditional one enters in the last layers alone.

Legend: N images, C channels, H rows, W columns, r resolution of a block.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from labelmint_export.checkpoints.archives import read_checkpoint
from labelmint_export.checkpoints.fields import RecordReader
from labelmint_export.checkpoints.net import refusing_malformed
from labelmint_export.checkpoints.records import Array, ModuleRecord
from labelmint_export.checkpoints.tensors import fill_from_arrays
from labelmint_export.errors import CheckpointError
from labelmint_export.gan.discriminator import PlainConv
from labelmint_export.generator.config import MAX_RESOLUTION
from labelmint_export.generator.layers import LRELU_GAIN

ROSINALITY_LAYERS = {"conv0": ("conv1.0", "conv1.1", ""), "conv1": ("conv2.1", "conv2.2", "conv2.0")}
ROSINALITY_LAYERS |= {"skip": ("skip.1", "", "skip.0")}
"""Our layer of a block -> where rosinality's program keeps its weight, its bias and its filter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkConfig:
    """Shape of the blocks."""

    channels: Mapping[int, int]
    """Feature maps at each resolution, from 4 to that of the picture."""
    image_channels: int
    """1 for grey, 3 for colour."""
    residual: bool = True
    """Whether a skip passes by each block: `resnet` in NVIDIA's words, `orig` if not."""
    conv_clamp: float | None = None
    """Bound of the absolute value behind each activation."""

    @property
    def resolution(self) -> int:
        """Side of the picture, pixels."""
        return max(self.channels)


class TrunkBlock(nn.Module):
    """Two convolutions, and the skip if there is one, from resolution r to r / 2."""

    def __init__(self, config: TrunkConfig, resolution: int) -> None:
        super().__init__()
        width, out = config.channels[resolution], config.channels[resolution // 2]
        gain = math.sqrt(0.5) if config.residual else 1.0  # the sum of two paths keeps its variance
        self.clamps = (config.conv_clamp, None if config.conv_clamp is None else config.conv_clamp * gain)
        self.conv0 = PlainConv(width, width, kernel=3)
        self.conv1 = PlainConv(width, out, kernel=3, down=True, gain=gain)
        self.skip = PlainConv(width, out, kernel=1, down=True, linear=True, gain=gain) if config.residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, C, r, r] to [N, C', r / 2, r / 2]."""
        y = _clamp(self.conv1(_clamp(self.conv0(x), self.clamps[0])), self.clamps[1])
        return y if self.skip is None else y + self.skip(x)


class DiscriminatorTrunk(nn.Module):
    """Picture -> features behind every block."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.fromrgb = PlainConv(config.image_channels, config.channels[config.resolution], kernel=1)
        resolutions = sorted((r for r in config.channels if r > 4), reverse=True)
        self.blocks = nn.ModuleDict({f"b{r}": TrunkBlock(config, r) for r in resolutions})

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Map float [N, image_channels, H, W], about [-1, 1], to float [N, C_i, H_i, W_i], the finest first."""
        x = _clamp(self.fromrgb(image), self.config.conv_clamp)
        maps: list[torch.Tensor] = []
        for block in self.blocks.values():
            x = block(x)
            maps.append(x)
        return maps


def _clamp(x: torch.Tensor, bound: float | None) -> torch.Tensor:
    return x if bound is None else x.clamp(-bound, bound)


def read_discriminator(path: Path) -> DiscriminatorTrunk:
    """Read the discriminator beside a generator; nothing in the file is executed.

    Args:
        path: Snapshot of StyleGAN2-ADA's or StyleGAN3's PyTorch program (`.pkl`), or of rosinality's (`.pt`).

    Returns:
        In evaluation mode, float32, on the CPU, without gradients.

    Raises:
        CheckpointError: The file is missing, malformed, or holds no discriminator of these programs.
    """
    with refusing_malformed(path, "features"):
        content = read_checkpoint(path)
        if isinstance(content, dict):
            if isinstance(content.get("D"), ModuleRecord):
                return trunk_from_record(content["D"], path)
            if isinstance(content.get("d"), dict):
                return _trunk_from_state_dict(content["d"], path)
        raise CheckpointError(
            f"{path} holds no discriminator, expected D of a snapshot of StyleGAN2-ADA's or StyleGAN3's PyTorch "
            "programs, or d of rosinality's; published files often lack it: give a snapshot of the training, or a "
            "network of train-oracle",
            field="features",
        )


def trunk_from_record(record: ModuleRecord, path: Path) -> DiscriminatorTrunk:
    """Make the blocks of NVIDIA's pickled `Discriminator`.

    Args:
        record: The snapshot's `D`.
        path: Where it comes from, for the errors.

    Raises:
        CheckpointError: A field is missing, out of range, or tells of another network; the message names it.
    """
    root = RecordReader(record, "D")
    root.agree("class_name", record.class_name, "Discriminator")
    top = root.whole("img_resolution")
    if not 8 <= top <= MAX_RESOLUTION or top & (top - 1):
        root.refuse("img_resolution", f"is {top}", f"a power of two from 8 to {MAX_RESOLUTION}")
    blocks = {2**i: root.child(f"b{2**i}", "DiscriminatorBlock") for i in range(top.bit_length() - 1, 2, -1)}
    architecture = blocks[top].text("architecture")
    if architecture not in ("resnet", "orig"):
        blocks[top].refuse("architecture", f"is {architecture!r}", "'resnet' or 'orig'")
    first = blocks[top].child("conv0", "Conv2dLayer")
    clamp = None if first.value("conv_clamp") is None else first.real("conv_clamp")
    config = TrunkConfig(
        channels={r: block.child("conv0", "Conv2dLayer").shape("weight", 4)[0] for r, block in blocks.items()}
        | {4: blocks[8].child("conv1", "Conv2dLayer").shape("weight", 4)[0]},
        image_channels=root.whole("img_channels"),
        residual=architecture == "resnet",
        conv_clamp=clamp,
    )
    arrays = _layer_arrays(blocks[top].child("fromrgb", "Conv2dLayer"), "fromrgb", down=1, conv_clamp=clamp)
    for r, block in blocks.items():
        block.agree("architecture", block.value("architecture"), architecture)
        for name, down in {"conv0": 1, "conv1": 2, **({"skip": 2} if config.residual else {})}.items():
            layer = block.child(name, "Conv2dLayer")
            bound, linear = (None, True) if name == "skip" else (clamp, False)
            arrays |= _layer_arrays(layer, f"blocks.b{r}.{name}", down=down, conv_clamp=bound, linear=linear)
    return fill_from_arrays(lambda: DiscriminatorTrunk(config), arrays, path)


def _layer_arrays(
    layer: RecordReader, target: str, *, down: int, conv_clamp: float | None, linear: bool = False
) -> dict[str, Array]:
    """Check that a convolution computes what ours does, and give its arrays our names."""
    _, in_channels, height, width = layer.shape("weight", 4)
    layer.agree("activation", layer.value("activation"), "linear" if linear else "lrelu")
    layer.agree("down", layer.whole("down"), down)
    layer.agree("conv_clamp", None if layer.value("conv_clamp") is None else layer.real("conv_clamp"), conv_clamp)
    gains = {"weight_gain": 1.0 / math.sqrt(max(in_channels * height * width, 1))}
    gains["act_gain"] = 1.0 if linear else LRELU_GAIN
    for name, expected in gains.items():
        if not math.isclose(layer.real(name), expected, rel_tol=1e-6):
            layer.refuse(name, f"is {layer.real(name)}", f"{expected}")
    unused = {"resample_filter"} if down == 1 else set()
    return {f"{target}.{name}": array for name, array in layer.record.tensors().items() if name not in unused}


def _trunk_from_state_dict(state: Mapping[object, object], path: Path) -> DiscriminatorTrunk:
    """Make the blocks of rosinality's `Discriminator`, whose widths are read from the shapes."""
    top = _array(state, "convs.0.0.weight", 4)
    count = 0
    while f"convs.{count + 1}.conv1.0.weight" in state and 8 * 2**count <= MAX_RESOLUTION:
        count += 1
    if not count:
        raise CheckpointError(f"d in {path} has no blocks, expected convs.1.conv1.0.weight", field="features")
    arrays = {"fromrgb.weight": top, "fromrgb.bias": _bias(state, "convs.0.1.bias")}
    channels = {4 * 2**count: top.shape[0]}
    for index in range(count):
        r = 4 * 2 ** (count - index)
        for name, (weight, bias, kernel) in ROSINALITY_LAYERS.items():
            target, source = f"blocks.b{r}.{name}", f"convs.{index + 1}"
            arrays[f"{target}.weight"] = _array(state, f"{source}.{weight}.weight", 4)
            if bias:
                arrays[f"{target}.bias"] = _bias(state, f"{source}.{bias}.bias")
            if kernel:
                arrays[f"{target}.resample_filter"] = _array(state, f"{source}.{kernel}.kernel", 2)
        channels[r // 2] = arrays[f"blocks.b{r}.conv1.weight"].shape[0]
    config = TrunkConfig(channels=channels, image_channels=top.shape[1])
    return fill_from_arrays(lambda: DiscriminatorTrunk(config), arrays, path)


def _array(state: Mapping[object, object], name: str, ndim: int) -> Array:
    array = state.get(name)
    if not isinstance(array, np.ndarray):
        raise CheckpointError(f"d has no array {name}, expected a discriminator of rosinality's program", field=name)
    if array.ndim != ndim:
        raise CheckpointError(f"{name} has shape {list(array.shape)}, expected {ndim} axes", field=name)
    return array


def _bias(state: Mapping[object, object], name: str) -> Array:
    """The bias of an activation; older versions of the program give it the axes of a picture."""
    array = state.get(name)
    if isinstance(array, np.ndarray) and array.ndim == 4 and array.size == array.shape[1]:
        return array.reshape(-1)
    return _array(state, name, 1)
