"""The blocks of StyleGAN2's discriminator written out plainly, and their weights in the layouts of other programs."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from labelmint_export.checkpoints import ModuleRecord
from tests.export.nvidia_records import module

Weights = dict[str, torch.Tensor]
"""`fromrgb.weight`, `b16.conv0.bias`, ... as the programs store them, before any gain."""

CHANNELS = {16: 5, 8: 6, 4: 7}
LINE = torch.tensor([1.0, 3.0, 3.0, 1.0])
KERNEL = torch.outer(LINE, LINE) / 64


def make_weights(*, image_channels: int = 3, residual: bool = True, seed: int = 0) -> Weights:
    random = torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def put(name: str, out: int, inputs: int, kernel: int, *, bias: bool = True) -> None:
        weights[f"{name}.weight"] = torch.randn(out, inputs, kernel, kernel, generator=random)
        if bias:
            weights[f"{name}.bias"] = 0.3 * torch.randn(out, generator=random)

    put("fromrgb", CHANNELS[16], image_channels, 1)
    for r in (16, 8):
        put(f"b{r}.conv0", CHANNELS[r], CHANNELS[r], 3)
        put(f"b{r}.conv1", CHANNELS[r // 2], CHANNELS[r], 3)
        if residual:
            put(f"b{r}.skip", CHANNELS[r // 2], CHANNELS[r], 1, bias=False)
    return weights


def plain_features(weights: Weights, image: torch.Tensor, conv_clamp: float | None = None) -> list[torch.Tensor]:
    """Features behind every block, in float64: each gain where the paper has it, filters tap by tap."""

    def convolve(x: torch.Tensor, name: str, padding: int = 0) -> torch.Tensor:
        weight = weights[f"{name}.weight"].double()
        return functional.conv2d(x, weight / math.sqrt(weight[0].numel()), padding=padding)

    def activate(x: torch.Tensor, name: str) -> torch.Tensor:
        x = x + weights[f"{name}.bias"].double()[:, None, None]
        x = torch.where(x < 0, 0.2 * x, x) * math.sqrt(2)
        return x if conv_clamp is None else x.clamp(-conv_clamp, conv_clamp)

    def smooth(x: torch.Tensor, padding: int) -> torch.Tensor:
        x = functional.pad(x, [padding] * 4)
        side = x.shape[2] - 3
        taps = [float(KERNEL[i, j]) * x[:, :, i : i + side, j : j + side] for i in range(4) for j in range(4)]
        return torch.stack(taps).sum(dim=0)

    x = activate(convolve(image.double(), "fromrgb"), "fromrgb")
    maps = []
    for r in (16, 8):
        y = activate(convolve(x, f"b{r}.conv0", padding=1), f"b{r}.conv0")
        y = activate(convolve(smooth(y, 2), f"b{r}.conv1")[:, :, ::2, ::2], f"b{r}.conv1")
        if f"b{r}.skip.weight" in weights:
            y = (y + convolve(smooth(x, 1)[:, :, ::2, ::2], f"b{r}.skip")) / math.sqrt(2)
        x = y
        maps.append(x)
    return maps


def rosinality_state(weights: Weights, *, old: bool = False) -> Weights:
    """What `d` holds; old versions of the program give biases the axes of a picture."""
    state = {"convs.0.0.weight": weights["fromrgb.weight"], "convs.0.1.bias": weights["fromrgb.bias"]}
    for index, r in enumerate((16, 8), start=1):
        state[f"convs.{index}.conv1.0.weight"] = weights[f"b{r}.conv0.weight"]
        state[f"convs.{index}.conv1.1.bias"] = weights[f"b{r}.conv0.bias"]
        state[f"convs.{index}.conv2.0.kernel"] = KERNEL
        state[f"convs.{index}.conv2.1.weight"] = weights[f"b{r}.conv1.weight"]
        state[f"convs.{index}.conv2.2.bias"] = weights[f"b{r}.conv1.bias"]
        state[f"convs.{index}.skip.0.kernel"] = KERNEL
        state[f"convs.{index}.skip.1.weight"] = weights[f"b{r}.skip.weight"]
    if old:
        state = {n: t[None, :, None, None] if n.endswith("bias") else t for n, t in state.items()}
    return state | {"final_linear.1.bias": torch.zeros(1)}


def nvidia_discriminator(
    weights: Weights, *, conv_clamp: float | None = None, architecture: str = "resnet"
) -> ModuleRecord:
    """What `D` of a snapshot becomes."""

    def layer(name: str, *, down: int = 1, linear: bool = False) -> ModuleRecord:
        own = {part: weights[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in weights}
        return module(
            "Conv2dLayer",
            own,
            {"resample_filter": KERNEL},
            activation="linear" if linear else "lrelu",
            up=1,
            down=down,
            conv_clamp=None if linear else conv_clamp,
            padding=own["weight"].shape[2] // 2,
            weight_gain=1 / math.sqrt(own["weight"][0].numel()),
            act_gain=1.0 if linear else math.sqrt(2),
        )

    def block(r: int) -> ModuleRecord:
        inner = {"conv0": layer(f"b{r}.conv0"), "conv1": layer(f"b{r}.conv1", down=2)}
        if r == 16:
            inner["fromrgb"] = layer("fromrgb")
        if f"b{r}.skip.weight" in weights:
            inner["skip"] = layer(f"b{r}.skip", down=2, linear=True)
        return module(
            "DiscriminatorBlock", {}, {"resample_filter": KERNEL}, inner, resolution=r, architecture=architecture
        )

    blocks = {f"b{r}": block(r) for r in (16, 8)}
    image_channels = weights["fromrgb.weight"].shape[1]
    return module(
        "Discriminator",
        modules={**blocks, "b4": module("DiscriminatorEpilogue")},
        img_resolution=16,
        img_channels=image_channels,
    )
