"""StyleGAN1 and StyleGAN2 written out plainly in numpy, float64, from the variables of a TensorFlow network.

Everything is in TensorFlow's conventions: pictures [N, H, W, C], kernels [rows, columns, in, out]. No code of the
package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Variables = Mapping[str, npt.NDArray[Any]]  # Any: arrays of every float dtype


def leaky_relu(x: Floats) -> Floats:
    return np.where(x > 0, x, 0.2 * x)


def unit(x: Floats, epsilon: float = 1e-8) -> Floats:
    """Rows of mean square one."""
    product: Floats = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + epsilon)
    return product


def conv_same(x: Floats, kernel: Floats) -> Floats:
    """What TensorFlow calls a convolution with padding SAME: a correlation, pixel by pixel of the kernel."""
    rows, columns = kernel.shape[:2]
    top, left = (rows - 1) // 2, (columns - 1) // 2
    padded = np.pad(x, [(0, 0), (top, rows - 1 - top), (left, columns - 1 - left), (0, 0)])
    height, width = x.shape[1:3]
    total = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            total += padded[:, i : i + height, j : j + width] @ kernel[i, j]
    return total


def scatter(x: Floats, kernel: Floats) -> Floats:
    """The gradient of a convolution of stride 2, without padding: each pixel puts the kernel at (2 row, 2 column)."""
    rows, columns = kernel.shape[:2]
    count, height, width, _ = x.shape
    total = np.zeros((count, 2 * height + rows - 2, 2 * width + columns - 2, kernel.shape[3]))
    for row in range(height):
        for column in range(width):
            put = np.einsum("ni,abio->nabo", x[:, row, column], kernel)
            total[:, 2 * row : 2 * row + rows, 2 * column : 2 * column + columns] += put
    return total


def each_channel(x: Floats, line: list[float], before: int, after: int) -> Floats:
    """True convolution of every channel with the outer product of a line, zeros before and after both axes."""
    size = len(line)
    padded = np.pad(x, [(0, 0), (before, after), (before, after), (0, 0)])
    height, width = padded.shape[1] - size + 1, padded.shape[2] - size + 1
    total = np.zeros((len(x), height, width, x.shape[3]))
    for i in range(size):
        for j in range(size):
            weight = line[size - 1 - i] * line[size - 1 - j]
            total += weight * padded[:, i : i + height, j : j + width]
    return total


def plain_w(variables: Variables, z: Floats, c: Floats | None, *, gain_on_bias: bool, scaled: bool = True) -> Floats:
    """z [N, z_dim] to w [N, w_dim]: StyleGAN2 has the activation's gain on the bias too, StyleGAN1 has not."""
    weights = {name.removeprefix("G_mapping/"): array.astype(np.float64) for name, array in variables.items()}
    if "LabelConcat/weight" in weights:
        assert c is not None
        x = unit(np.concatenate([z, c @ weights["LabelConcat/weight"]], axis=1))
    elif "LabelEmbed/weight" in weights:
        assert c is not None
        embed = weights["LabelEmbed/weight"]
        y = c @ embed / np.sqrt(len(embed)) + weights["LabelEmbed/bias"]
        x = np.concatenate([unit(z), unit(y)], axis=1)
    else:
        x = unit(z)
    index = 0
    while f"Dense{index}/weight" in weights:
        matrix, bias = weights[f"Dense{index}/weight"] * 0.01, weights[f"Dense{index}/bias"] * 0.01
        if gain_on_bias:
            x = np.sqrt(2) * leaky_relu(x @ matrix / np.sqrt(len(matrix)) + bias)
        else:
            x = leaky_relu(x @ matrix * (np.sqrt(2 / len(matrix)) if scaled else 1.0) + bias)
        index += 1
    return x


def plain_stylegan1(
    variables: Variables,
    ws: Floats,
    *,
    fused_from: int = 128,
    scaled: bool = True,
    blur: tuple[float, ...] | None = (0.25, 0.5, 0.25),
) -> Floats:
    """Pictures [N, r, r, 3] of ws [N, num_ws, w_dim].

    `fused_from` is the resolution from which blocks upsample by a transposed convolution.
    """
    weights = {name.removeprefix("G_synthesis/"): array.astype(np.float64) for name, array in variables.items()}

    def kernel(name: str, gain: float) -> Floats:
        stored = weights[f"{name}/weight"]
        product: Floats = stored * (gain / np.sqrt(np.prod(stored.shape[:-1])) if scaled else 1.0)
        return product

    def finish(x: Floats, name: str, index: int) -> Floats:
        noise = weights[f"noise{index}"][0, 0, :, :, None] if f"noise{index}" in weights else np.zeros(())
        strength = weights.get(f"{name}/Noise/weight", np.zeros(()))
        x = leaky_relu(x + noise * strength + weights[f"{name}/bias"])
        x = x - x.mean(axis=(1, 2), keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=(1, 2), keepdims=True) + 1e-8)
        style = ws[:, index] @ kernel(f"{name}/StyleMod", 1.0) + weights[f"{name}/StyleMod/bias"]
        style = style.reshape(len(ws), 2, 1, 1, -1)
        styled: Floats = x * (style[:, 0] + 1) + style[:, 1]
        return styled

    root = np.sqrt(2)
    x = np.repeat(weights["4x4/Const/const"].transpose(0, 2, 3, 1), len(ws), axis=0)
    x = finish(x, "4x4/Const", 0)
    x = finish(conv_same(x, kernel("4x4/Conv", root)), "4x4/Conv", 1)
    index, r = 2, 8
    while f"{r}x{r}/Conv1/weight" in weights:
        up = kernel(f"{r}x{r}/Conv0_up", root)
        if r >= fused_from:
            grown = np.zeros((4, 4, *up.shape[2:]))
            for i in (0, 1):
                for j in (0, 1):
                    grown[i : i + 3, j : j + 3] += up
            x = scatter(x, grown)[:, 1:-1, 1:-1]
        else:
            x = conv_same(x.repeat(2, axis=1).repeat(2, axis=2), up)
        x = x if blur is None else each_channel(x, list(blur), 1, 1)
        x = finish(x, f"{r}x{r}/Conv0_up", index)
        x = finish(conv_same(x, kernel(f"{r}x{r}/Conv1", root)), f"{r}x{r}/Conv1", index + 1)
        index, r = index + 2, 2 * r
    return conv_same(x, kernel("ToRGB_lod0", 1.0)) + weights["ToRGB_lod0/bias"]


LINE = [0.25, 0.75, 0.75, 0.25]
"""[1 3 3 1] / 8, and twice as much, because three of four pixels are zeros."""


def modulated(
    weights: Mapping[str, Floats], x: Floats, name: str, w: Floats, *, up: bool = False, normal: bool = True
) -> Floats:
    """Convolve each picture with weights of its own, made from its w [N, w_dim]."""
    stored = weights[f"{name}/weight"] / np.sqrt(np.prod(weights[f"{name}/weight"].shape[:3]))
    matrix = weights[f"{name}/mod_weight"]
    styles = w @ matrix / np.sqrt(len(matrix)) + weights[f"{name}/mod_bias"] + 1
    pictures = []
    for picture, style in zip(x, styles, strict=True):
        kernel = stored * style[:, None]
        if normal:
            kernel = kernel / np.sqrt((kernel**2).sum(axis=(0, 1, 2)) + 1e-8)
        if up:  # zeros between the pixels, a true convolution with the turned kernel, then the filter
            made = each_channel(scatter(picture[None], kernel[::-1, ::-1]), LINE, 1, 1)
        else:
            made = conv_same(picture[None], kernel)
        pictures.append(made)
    return np.concatenate(pictures)


def doubled(x: Floats) -> Floats:
    """Zeros between the pixels, then the filter."""
    spread = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
    spread[:, ::2, ::2] = x
    return each_channel(spread, LINE, 2, 1)


def plain_stylegan2(
    variables: Variables, ws: Floats, *, architecture: str = "skip", clamp: float | None = None
) -> tuple[Floats, list[Floats]]:
    """Pictures [N, r, r, channels] of ws [N, num_ws, w_dim], and what every styled layer gives."""
    weights = {name.removeprefix("G_synthesis/"): array.astype(np.float64) for name, array in variables.items()}
    taps: list[Floats] = []

    def bounded(x: Floats) -> Floats:
        return x if clamp is None else x.clip(-clamp, clamp)

    def layer(x: Floats, name: str, index: int, *, up: bool = False) -> Floats:
        x = modulated(weights, x, name, ws[:, index], up=up)
        if f"noise{index}" in weights:
            x = x + weights[f"noise{index}"][0, 0, :, :, None] * weights[f"{name}/noise_strength"]
        return bounded(np.sqrt(2) * leaky_relu(x + weights[f"{name}/bias"]))

    def colours(x: Floats, name: str, index: int) -> Floats:
        return bounded(modulated(weights, x, name, ws[:, index], normal=False) + weights[f"{name}/bias"])

    resolution = max(int(name.split("x")[0]) for name in weights if name.endswith("/Conv1/weight"))
    x = np.repeat(weights["4x4/Const/const"].transpose(0, 2, 3, 1), len(ws), axis=0)
    x = layer(x, "4x4/Conv", 0)
    taps.append(x)
    image = colours(x, "4x4/ToRGB", 1) if architecture == "skip" else np.zeros(())
    index, r = 1, 8
    while r <= resolution:
        old = x
        x = layer(x, f"{r}x{r}/Conv0_up", index, up=True)
        taps.append(x)
        x = layer(x, f"{r}x{r}/Conv1", index + 1)
        taps.append(x)
        if architecture == "resnet":
            matrix = weights[f"{r}x{r}/Skip/weight"][0, 0]
            x = (x + doubled(old @ matrix / np.sqrt(len(matrix)))) / np.sqrt(2)
        if architecture == "skip":
            image = doubled(image) + colours(x, f"{r}x{r}/ToRGB", index + 2)
        index, r = index + 2, 2 * r
    if architecture == "grown":
        image = colours(x, "ToRGB_lod0", index)
    elif architecture != "skip":
        image = colours(x, f"{resolution}x{resolution}/ToRGB", index)
    return image, taps
