"""Layers that StyleGAN2's generator and discriminator share.

Legend: N images, I input channels, O output channels, H rows, W columns, D features.

Weights are stored with unit variance and scaled at run time ("equalised learning rate", Karras et al. 2018, section
4.1), so that Adam moves all of them at the same relative speed.
"""

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Activation = Literal["linear", "lrelu"]

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Apply an activation that keeps the variance of unit-variance input.

    Args:
        x: float [...].
        activation: "lrelu" has slope 0.2 and an implied gain of sqrt(2).

    Returns:
        float, shaped like x.
    """
    if activation == "lrelu":
        return functional.leaky_relu(x, LRELU_SLOPE) * LRELU_GAIN
    return x


def normalize_second_moment(x: torch.Tensor) -> torch.Tensor:
    """Scale each row to a mean square of one.

    Args:
        x: float [N, D].

    Returns:
        float [N, D].
    """
    # A floor, not a summand: exporters drop the addition of 1e-8 as if it were that of zero, and z = 0 becomes NaN.
    return x * x.square().mean(dim=1, keepdim=True).clamp(min=1e-8).rsqrt()


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate.

    Args:
        in_features: D of the input.
        out_features: D of the output.
        activation: What follows the linear map.
        lr_multiplier: Learning rate relative to the other layers (0.01 in the mapping network).
        bias_init: Initial value of each bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: Activation = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, in_features] to float [N, out_features]."""
        y = functional.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return activate(y, self.activation)


def binomial_filter(taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)) -> torch.Tensor:
    """Make the low-pass filter that StyleGAN2 puts around every resampling.

    Args:
        taps: One-dimensional taps; the filter is their outer product, with sum one.

    Returns:
        float32 [T, T].
    """
    line = torch.tensor(taps, dtype=torch.float32)
    square = torch.outer(line, line)
    return square / square.sum()


def blur(x: torch.Tensor, kernel: torch.Tensor, padding: tuple[int, int, int, int], gain: float = 1.0) -> torch.Tensor:
    """Filter every channel with one small kernel.

    Args:
        x: float [N, C, H, W].
        kernel: float [T, T], symmetric under rotation by 180 degrees or already flipped.
        padding: Zeros on the left, right, top and bottom.
        gain: Factor on the kernel.

    Returns:
        float [N, C, H + top + bottom - T + 1, W + left + right - T + 1].
    """
    channels = x.shape[1]
    left, right, top, bottom = padding
    weight = (kernel * gain).to(x.dtype)[None, None].expand(channels, 1, -1, -1)
    if left == right and top == bottom:
        return functional.conv2d(x, weight, padding=(top, left), groups=channels)
    return functional.conv2d(functional.pad(x, [left, right, top, bottom]), weight, groups=channels)


def upsample_2x(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Double the resolution: zeros between the pixels, then the low-pass filter.

    Args:
        x: float [N, C, H, W].
        kernel: float [4, 4].

    Returns:
        float [N, C, 2H, 2W].
    """
    channels = x.shape[1]
    weight = (kernel * 4.0).to(x.dtype)[None, None].expand(channels, 1, -1, -1)
    return functional.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


def downsample_2x(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Halve the resolution: the low-pass filter, then every second pixel.

    Args:
        x: float [N, C, H, W], H and W even.
        kernel: float [4, 4].

    Returns:
        float [N, C, H / 2, W / 2].
    """
    if x.dtype != torch.float32:
        # The strided convolution's backward pass in half precision takes several times as long as this one's on a CPU.
        return blur(x, kernel, (1, 1, 1, 1))[:, :, ::2, ::2]
    channels = x.shape[1]
    weight = kernel[None, None].expand(channels, 1, -1, -1)
    return functional.conv2d(x, weight, stride=2, padding=1, groups=channels)
