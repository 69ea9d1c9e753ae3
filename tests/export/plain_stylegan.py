"""StyleGAN2 written out plainly: weights of each sample's own, grouped convolution, filters tap by tap."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from labelmint_export.generator import Generator


def modulated_weights(weight: torch.Tensor, styles: torch.Tensor, *, demodulate: bool) -> torch.Tensor:
    """Equations 1 and 3 of Karras et al. 2020: [N, O, I, k, k]."""
    scaled = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        scaled = scaled / (scaled.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).sqrt()
    return scaled


def grouped_conv(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Convolve every sample with weights of its own, as one grouped convolution."""
    count, out_channels, in_channels, kernel, _ = weights.shape
    grouped = functional.conv2d(
        x.reshape(1, count * in_channels, *x.shape[2:]),
        weights.reshape(count * out_channels, in_channels, kernel, kernel),
        padding=kernel // 2,
        groups=count,
    )
    return grouped.reshape(count, out_channels, *x.shape[2:])


BINOMIAL = (1.0, 3.0, 3.0, 1.0)
Line = tuple[float, float, float, float]


def fir(x: torch.Tensor, gain: float, taps: Line = BINOMIAL) -> torch.Tensor:
    """Valid convolution, which turns the filter, tap by tap."""
    line = [tap / sum(taps) for tap in reversed(taps)]
    height, width = x.shape[2] - 3, x.shape[3] - 3
    total = torch.zeros_like(x[:, :, :height, :width])
    for i, a in enumerate(line):
        for j, b in enumerate(line):
            total = total + gain * a * b * x[:, :, i : i + height, j : j + width]
    return total


def upsampling_conv(x: torch.Tensor, weights: torch.Tensor, taps: Line = BINOMIAL) -> torch.Tensor:
    """Put each pixel's kernel at every second place, then filter: transposed convolution written as sums."""
    count, out_channels, _, kernel, _ = weights.shape
    height, width = x.shape[2:]
    spread = x.new_zeros(count, out_channels, 2 * height - 1 + kernel + 1, 2 * width - 1 + kernel + 1)
    for i in range(kernel):
        for j in range(kernel):
            part = torch.einsum("nihw,noi->nohw", x, weights[..., i, j])
            spread[:, :, i + 1 : i + 1 + 2 * height : 2, j + 1 : j + 1 + 2 * width : 2] += part
    return fir(spread, 4.0, taps)  # one zero on each side of the 2 H + 1 rows


def plain_synthesis(
    generator: Generator,
    ws: torch.Tensor,
    noise_mode: str = "const",
    noise: Mapping[str, torch.Tensor] | None = None,
    filter_taps: Line = BINOMIAL,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The whole synthesis from the weights alone, in their dtype."""
    config = generator.config
    weights: dict[str, torch.Tensor] = {
        name.removeprefix("synthesis."): t for name, t in generator.state_dict().items()
    }
    taps: dict[str, torch.Tensor] = {}

    def style(name: str, w: torch.Tensor) -> torch.Tensor:
        matrix = weights[f"{name}.affine.weight"]
        return w @ matrix.T / math.sqrt(matrix.shape[1]) + weights[f"{name}.affine.bias"]

    def conv_weights(name: str, w: torch.Tensor, *, demodulate: bool) -> torch.Tensor:
        weight = weights[f"{name}.conv.weight"]
        gain = 1 / math.sqrt(weight[0].numel())
        return modulated_weights(weight * gain, style(name, w), demodulate=demodulate)

    def clamped(x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        return x if config.conv_clamp is None else x.clamp(-config.conv_clamp * gain, config.conv_clamp * gain)

    def doubled(x: torch.Tensor) -> torch.Tensor:
        spread = x.new_zeros(*x.shape[:2], 2 * x.shape[2] + 3, 2 * x.shape[3] + 3)
        spread[:, :, 2 : 2 + 2 * x.shape[2] : 2, 2 : 2 + 2 * x.shape[3] : 2] = x
        return fir(spread, 4.0, filter_taps)

    def layer(name: str, x: torch.Tensor, w: torch.Tensor, *, up: bool, gain: float = 1.0) -> torch.Tensor:
        kernels = conv_weights(name, w, demodulate=True)
        x = upsampling_conv(x, kernels, filter_taps) if up else grouped_conv(x, kernels)
        stored = weights[f"{name}.noise_const"] if noise_mode == "const" else ws.new_zeros([])
        x = x + (noise or {}).get(name.removeprefix("blocks."), stored) * weights[f"{name}.noise_strength"]
        x = x + weights[f"{name}.bias"][:, None, None]
        taps[name.removeprefix("blocks.")] = x = clamped(torch.where(x > 0, x, 0.2 * x) * math.sqrt(2) * gain, gain)
        return x

    def residual_of(name: str, x: torch.Tensor) -> torch.Tensor:
        matrix = weights[f"{name}.weight"][:, :, 0, 0] / math.sqrt(x.shape[1])
        return doubled(torch.einsum("oi,nihw->nohw", matrix, x)) * math.sqrt(0.5)

    image = None
    index = 0
    x = ws
    for r in config.block_resolutions:
        block = f"blocks.b{r}"
        residual = residual_of(f"{block}.skip", x) if f"{block}.skip.weight" in weights else None
        if r == 4:
            x = weights[f"{block}.constant_input"].expand(len(ws), -1, -1, -1)
        else:
            x = layer(f"{block}.conv0", x, ws[:, index], up=True)
            index += 1
        x = layer(f"{block}.conv1", x, ws[:, index], up=False, gain=1.0 if residual is None else math.sqrt(0.5))
        index += 1
        if residual is not None:
            x = residual + x
        if config.architecture == "skip" or r == config.resolution:
            colours = grouped_conv(x, conv_weights(f"{block}.torgb", ws[:, index], demodulate=False))
            colours = clamped(colours + weights[f"{block}.torgb.bias"][:, None, None])
            image = colours if image is None else doubled(image) + colours
    assert image is not None
    return image, taps


def plain_mapping(generator: Generator, z: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    """z [N, z_dim] and one-hot classes [N, c_dim] to w [N, w_dim], in the dtype of the weights."""
    weights = generator.mapping.state_dict()

    def normalized(x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()

    x = normalized(z)
    if c is not None:
        matrix = weights["embed.weight"]
        x = torch.cat([x, normalized(c @ matrix.T / math.sqrt(matrix.shape[1]) + weights["embed.bias"])], dim=1)
    for index in range(generator.config.mapping_layers):
        matrix, bias = weights[f"layers.{index}.weight"], weights[f"layers.{index}.bias"]
        y = x @ matrix.T * (0.01 / math.sqrt(matrix.shape[1])) + bias * 0.01
        x = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)
    return x


def plain_truncation(generator: Generator, w: torch.Tensor, psi: torch.Tensor, cutoff: int) -> torch.Tensor:
    """w [N, w_dim] and psi [N] to ws [N, L, w_dim]; cutoff 0 truncates all."""
    mean = generator.mapping.w_avg
    truncated = psi[:, None] * w + (1 - psi[:, None]) * mean
    leading = cutoff or generator.config.num_ws
    return torch.stack([truncated if index < leading else w for index in range(generator.config.num_ws)], dim=1)
