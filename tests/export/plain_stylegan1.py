"""StyleGAN1 written out plainly in numpy, float64, from a DatasetGAN state dict; no code of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
StateDict = Mapping[str, npt.NDArray[Any]]  # Any: arrays of every dtype


def make_state_dict(
    channels: Mapping[int, int], *, widths: tuple[int, ...] = (6, 7, 5), image_channels: int = 3, seed: int = 0
) -> dict[str, npt.NDArray[np.float32]]:
    """Random float32 arrays under the names of DatasetGAN's StyleGAN1; `widths` go from z to w."""
    random = np.random.default_rng(seed)

    def draw(*shape: int, deviation: float = 1.0) -> npt.NDArray[np.float32]:
        return (deviation * random.standard_normal(shape)).astype(np.float32)

    w_dim = widths[-1]
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for index in range(len(widths) - 1):
        tensors[f"g_mapping.dense{index}.weight"] = draw(widths[index + 1], widths[index], deviation=100.0)
        tensors[f"g_mapping.dense{index}.bias"] = draw(widths[index + 1], deviation=30.0)
    line = np.array([0.25, 0.5, 0.25])
    incoming = 0
    for r, width in channels.items():
        block = f"g_synthesis.blocks.{r}x{r}"
        if r == 4:
            tensors |= {f"{block}.const": draw(1, width, 4, 4), f"{block}.bias": draw(width, deviation=0.2)}
        else:
            tensors[f"{block}.conv0_up.weight"] = draw(width, incoming, 3, 3)
            tensors[f"{block}.conv0_up.bias"] = draw(width, deviation=0.2)
            tensors[f"{block}.conv0_up.intermediate.kernel"] = np.outer(line, line)[None, None].astype(np.float32)
        convolution = f"{block}.{'conv' if r == 4 else 'conv1'}"
        tensors |= {
            f"{convolution}.weight": draw(width, width, 3, 3),
            f"{convolution}.bias": draw(width, deviation=0.2),
        }
        for epilogue in ("epi1", "epi2"):
            tensors[f"{block}.{epilogue}.top_epi.noise.weight"] = draw(width, deviation=0.3)
            tensors[f"{block}.{epilogue}.style_mod.lin.weight"] = draw(2 * width, w_dim)
            tensors[f"{block}.{epilogue}.style_mod.lin.bias"] = draw(2 * width, deviation=0.2)
        incoming = width
    tensors["g_synthesis.torgb.weight"] = draw(image_channels, incoming, 1, 1)
    tensors["g_synthesis.torgb.bias"] = draw(image_channels, deviation=0.2)
    return tensors


def leaky_relu(x: Floats) -> Floats:
    return np.where(x > 0, x, 0.2 * x)


def plain_mapping(tensors: StateDict, z: Floats) -> Floats:
    """z [N, z_dim] to w [N, w_dim]."""
    x: Floats = z / np.sqrt((z**2).mean(axis=1, keepdims=True) + 1e-8)
    index = 0
    while f"g_mapping.dense{index}.weight" in tensors:
        weight = tensors[f"g_mapping.dense{index}.weight"].astype(np.float64)
        bias = tensors[f"g_mapping.dense{index}.bias"].astype(np.float64)
        x = leaky_relu(x @ weight.T * (np.sqrt(2) * 0.01 / np.sqrt(weight.shape[1])) + bias * 0.01)
        index += 1
    return x


def correlate(x: Floats, kernel: Floats) -> Floats:
    """Convolution of [N, I, H, W] with [O, I, 3, 3], zeros around, tap by tap."""
    height, width = x.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    total = np.zeros((len(x), len(kernel), height, width))
    for i in range(3):
        for j in range(3):
            total += np.einsum("nihw,oi->nohw", padded[:, :, i : i + height, j : j + width], kernel[:, :, i, j])
    return total


def spread(x: Floats, kernel: Floats) -> Floats:
    """Transposed convolution of stride 2: each pixel's kernel is put at four neighbouring places."""
    count, _, height, width = x.shape
    total = np.zeros((count, len(kernel), 2 * height + 2, 2 * width + 2))
    for i in range(3):
        for j in range(3):
            part = np.einsum("nihw,oi->nohw", x, kernel[:, :, i, j])
            for down in (0, 1):
                for right in (0, 1):
                    top, left = i + down, j + right
                    total[:, :, top : top + 2 * height : 2, left : left + 2 * width : 2] += part
    return total[:, :, 1:-1, 1:-1]


def plain_synthesis(tensors: StateDict, ws: Floats, noise: StateDict) -> tuple[Floats, dict[str, Floats]]:
    """Pictures and taps.

    Args:
        tensors: `g_synthesis.*`.
        ws: [N, num_ws, w_dim].
        noise: Layer name, such as b8.epi1, -> [N or 1, 1, r, r]; a layer that is not named gets none.
    """
    weights = {name.removeprefix("g_synthesis."): array.astype(np.float64) for name, array in tensors.items()}
    taps: dict[str, Floats] = {}

    def scaled(name: str, gain: float) -> Floats:
        weight = weights[f"{name}.weight"]
        product: Floats = weight * gain / np.sqrt(weight[0].size)
        return product

    def bias(name: str) -> Floats:
        return weights[f"{name}.bias"][:, None, None]

    def epilogue(name: str, short: str, x: Floats, w: Floats) -> Floats:
        strength = weights[f"{name}.top_epi.noise.weight"][:, None, None]
        x = leaky_relu(x + strength * noise.get(short, np.zeros(())))
        normal = (x - x.mean(axis=(2, 3), keepdims=True)) / np.sqrt(x.var(axis=(2, 3), keepdims=True) + 1e-5)
        style = w @ scaled(f"{name}.style_mod.lin", 1.0).T + weights[f"{name}.style_mod.lin.bias"]
        style = style.reshape(len(w), 2, x.shape[1], 1, 1)
        styled: Floats = normal * (1 + style[:, 0]) + style[:, 1]
        return styled

    r = 4
    x = np.repeat(weights["blocks.4x4.const"] + bias("blocks.4x4"), len(ws), axis=0)
    while f"blocks.{r}x{r}.epi1.top_epi.noise.weight" in weights:
        block = f"blocks.{r}x{r}"
        index = 2 * (r.bit_length() - 3)
        if r > 4:
            kernel = scaled(f"{block}.conv0_up", np.sqrt(2))
            x = spread(x, kernel) if r >= 128 else correlate(x.repeat(2, axis=2).repeat(2, axis=3), kernel)
            blur = weights[f"{block}.conv0_up.intermediate.kernel"][0, 0]
            x = correlate(x, np.eye(x.shape[1])[:, :, None, None] * blur) + bias(f"{block}.conv0_up")
        x = epilogue(f"{block}.epi1", f"b{r}.epi1", x, ws[:, index])
        second = f"{block}.{'conv' if r == 4 else 'conv1'}"
        taps[f"b{r}.conv1"] = correlate(x, scaled(second, np.sqrt(2))) + bias(second)
        x = taps[f"b{r}.epi2"] = epilogue(f"{block}.epi2", f"b{r}.epi2", taps[f"b{r}.conv1"], ws[:, index + 1])
        r *= 2
    image = np.einsum("nihw,oi->nohw", x, scaled("torgb", 1.0)[:, :, 0, 0]) + bias("torgb")
    return image, taps
