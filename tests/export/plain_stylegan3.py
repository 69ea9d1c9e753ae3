"""StyleGAN3 written out plainly: weights for each image, zeros between pixels, square filters, no tricks."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from labelmint_export.generator.stylegan3 import StyleGAN3Generator, SynthesisInput, SynthesisLayer


def plain_input(features: SynthesisInput, w: torch.Tensor) -> torch.Tensor:
    """One image and one pixel at a time would be plainer still, but slow: float [N, F, size, size]."""
    places = (torch.arange(features.size).to(w) + 0.5 - features.size / 2) / features.sampling_rate
    y, x = torch.meshgrid(places, places, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # [H, W, 3]
    pictures = []
    for row in features.affine(w):
        turn_x, turn_y, move_x, move_y = (row / row[:2].norm()).tolist()
        rotation = torch.tensor([[turn_x, -turn_y, 0], [turn_y, turn_x, 0], [0, 0, 1]]).to(w)
        translation = torch.tensor([[1, 0, -move_x], [0, 1, -move_y], [0, 0, 1]]).to(w)
        matrix = rotation @ translation @ features.transform
        there = (points @ matrix.T)[..., :2]
        speed = (features.freqs @ matrix[:2, :2]).norm(dim=1)
        limit = features.sampling_rate / 2
        loudness = ((limit - speed) / (limit - features.bandwidth)).clamp(0, 1)
        waves = torch.sin(2 * math.pi * (there @ features.freqs.T + features.phases)) * loudness  # [H, W, F]
        pictures.append((waves @ features.weight.T / math.sqrt(len(features.freqs))).permute(2, 0, 1))
    return torch.stack(pictures)


def square(kernel: torch.Tensor) -> torch.Tensor:
    return torch.outer(kernel, kernel) if kernel.ndim == 1 else kernel


def filter_pixels(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """True convolution of every channel, where the kernel fits."""
    weight = square(kernel).flip([0, 1])[None, None].expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x, weight, groups=x.shape[1])


def plain_layer(layer: SynthesisLayer, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Float [N, I, in, in] and [N, D] to [N, O, out, out]."""
    config = layer.config
    styles = layer.affine(w)
    images = []
    for picture, style in zip(x, styles, strict=True):
        weight: torch.Tensor = layer.weight
        if config.is_torgb:
            weight = weight * style[None, :, None, None] / math.sqrt(weight[0].numel())
        else:
            weight = weight / weight.square().mean(dim=[1, 2, 3], keepdim=True).sqrt()
            weight = weight * (style / style.square().mean().sqrt())[None, :, None, None]
            weight = weight / (weight.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8).sqrt()
        weight = weight / layer.magnitude_ema.sqrt()
        images.append(functional.conv2d(picture[None], weight, padding=config.kernel - 1))
    x = torch.cat(images) + layer.bias[:, None, None]
    up = config.up_factor
    sparse = x.new_zeros(*x.shape[:2], x.shape[2] * up, x.shape[3] * up)
    sparse[:, :, ::up, ::up] = x * up**2
    x = functional.pad(sparse, list(config.padding))
    x = filter_pixels(x, layer.up_filter) if config.up_taps > 1 else x
    x = x if config.is_torgb else functional.leaky_relu(x, 0.2) * math.sqrt(2)
    x = x if config.conv_clamp is None else x.clamp(-config.conv_clamp, config.conv_clamp)
    x = filter_pixels(x, layer.down_filter) if config.down_taps > 1 else x
    return x[:, :, :: config.down_factor, :: config.down_factor]


def plain_synthesis(generator: StyleGAN3Generator, ws: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Picture and taps."""
    x = plain_input(generator.synthesis.input, ws[:, 0])
    taps = {}
    for index, config in enumerate(generator.config.layers, start=1):
        layer = generator.synthesis.get_submodule(config.name)
        assert isinstance(layer, SynthesisLayer)
        x = taps[config.name] = plain_layer(layer, x, ws[:, index])
    return x * generator.config.output_scale, taps
