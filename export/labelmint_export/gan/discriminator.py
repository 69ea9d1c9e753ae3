"""StyleGAN2 discriminator: residual blocks that also see the picture at their own resolution.

Legend: N images, C channels, H rows, W columns, r resolution of a block.

The residual blocks are those of Karras et al. 2020, section 4.1. Each block adds `fromrgb` of the picture at its
resolution (their input skips), so that a discriminator of a lower resolution is a part of the one of a higher
resolution, and training can start small and grow.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from labelmint_export.generator.config import GeneratorConfig
from labelmint_export.generator.layers import (
    LRELU_GAIN,
    LRELU_SLOPE,
    FullyConnected,
    binomial_filter,
    blur,
    downsample_2x,
)

MINIBATCH_GROUP = 4


class PlainConv(nn.Module):
    """Convolution with equalised learning rate, optionally followed by a halving of the resolution."""

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        down: bool = False,
        linear: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.down = down
        self.linear = linear
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = None if linear else nn.Parameter(torch.zeros(out_channels))
        # The activation's gain and the block's go into weight and bias: leaky ReLU is homogeneous, and a pass is saved.
        self.gain = gain if linear else gain * LRELU_GAIN
        self.weight_gain = self.gain / math.sqrt(in_channels * kernel * kernel)
        if down:
            self.register_buffer("resample_filter", binomial_filter())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve float [N, I, H, W] to float [N, O, H, W], halved if the layer goes down."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.gain).to(x.dtype)
        if self.down and weight.shape[2] == 1:
            x = functional.conv2d(downsample_2x(x, self.resample_filter), weight, bias)
        elif self.down:
            x = functional.conv2d(blur(x, self.resample_filter, (2, 2, 2, 2)), weight, bias, stride=2)
        else:
            x = functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
        return x if self.linear else functional.leaky_relu(x, LRELU_SLOPE)


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a skip, from resolution r to r / 2."""

    def __init__(self, image_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fromrgb = PlainConv(image_channels, in_channels, kernel=1)
        self.conv0 = PlainConv(in_channels, in_channels, kernel=3)
        self.conv1 = PlainConv(in_channels, out_channels, kernel=3, down=True, gain=math.sqrt(0.5))
        self.skip = PlainConv(in_channels, out_channels, kernel=1, down=True, linear=True, gain=math.sqrt(0.5))

    def forward(self, x: torch.Tensor | None, image: torch.Tensor) -> torch.Tensor:
        """Map features (None at the top) and the picture at this resolution to features at half of it."""
        y = self.fromrgb(image)
        if x is not None:
            y = (x + y) * math.sqrt(0.5)
        features: torch.Tensor = self.conv1(self.conv0(y)) + self.skip(y)
        return features


class PictureTrunk(nn.Module):
    """Picture -> features at 4 x 4: what the discriminator and the encoder have in common.

    Args:
        config: Shape of the generator that paints the pictures.
        channels: Feature maps at each resolution.
    """

    resample_filter: torch.Tensor

    def __init__(self, config: GeneratorConfig, channels: Mapping[int, int]) -> None:
        super().__init__()
        self.config = config
        self.resolutions = tuple(r for r in reversed(config.block_resolutions) if r > 4)
        self.blocks = nn.ModuleDict(
            {
                f"b{r}": DiscriminatorBlock(config.image_channels, channels[r], channels[r // 2])
                for r in self.resolutions
            }
        )
        self.register_buffer("resample_filter", binomial_filter())

    def block(self, resolution: int) -> DiscriminatorBlock:
        """The block of one resolution."""
        block = self.blocks[f"b{resolution}"]
        assert isinstance(block, DiscriminatorBlock)
        return block

    def features(self, image: torch.Tensor, compute_dtype: torch.dtype) -> torch.Tensor:
        """Look at pictures.

        Args:
            image: float32 [N, image_channels, resolution, resolution], about [-1, 1].
            compute_dtype: dtype of the feature maps.

        Returns:
            float32 [N, channels[4], 4, 4].
        """
        image = image.to(compute_dtype)
        x: torch.Tensor | None = None
        for r in self.resolutions:
            x = self.block(r)(x, image)
            if r > 8:
                image = downsample_2x(image, self.resample_filter)
        assert x is not None
        return x.float()


class Discriminator(PictureTrunk):
    """Picture -> one logit, high for pictures of the set.

    Args:
        config: Shape of the generator it trains, one without classes.
        channels: Feature maps at each resolution.
    """

    def __init__(self, config: GeneratorConfig, channels: Mapping[int, int]) -> None:
        super().__init__(config, channels)
        top = channels[4]
        self.conv = PlainConv(top + 1, top, kernel=3)
        self.fc = FullyConnected(top * 16, top, activation="lrelu")
        self.out = FullyConnected(top, 1)

    def forward(self, image: torch.Tensor, compute_dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Judge pictures.

        Args:
            image: float32 [N, image_channels, resolution, resolution], about [-1, 1].
            compute_dtype: dtype of the feature maps; the minibatch deviation and the last layers are float32.

        Returns:
            float32 [N], logits.
        """
        x = self.features(image, compute_dtype)
        x = self.conv(torch.cat([x, minibatch_deviation(x)], dim=1))
        y: torch.Tensor = self.out(self.fc(x.flatten(1)))
        return y[:, 0]


def minibatch_deviation(x: torch.Tensor) -> torch.Tensor:
    """Average over features and places of the deviation inside groups of pictures (Karras et al. 2018, section 3).

    Args:
        x: float32 [N, C, H, W].

    Returns:
        float32 [N, 1, H, W], constant over each picture.
    """
    count, channels, height, width = x.shape
    group = min(MINIBATCH_GROUP, count)
    while count % group:
        group -= 1
    y = x.reshape(group, count // group, channels, height, width)  # [G, N / G, C, H, W]
    y = (y - y.mean(dim=0)).square().mean(dim=0)
    y = (y + 1e-8).sqrt().mean(dim=[1, 2, 3])  # [N / G]
    return y.repeat(group)[:, None, None, None].expand(-1, 1, height, width)
