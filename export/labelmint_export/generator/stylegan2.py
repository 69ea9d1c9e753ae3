"""StyleGAN2 generator with feature taps (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN").

Legend: N images, L num_ws, D w_dim, I and O channels, H rows, W columns, r resolution of a block.

The modulated convolution scales activations instead of weights: `demodulation * conv(x * style, weight)`. It is the
same function as convolving each image with its own weights (Karras et al. 2020, section 2.2), and it exports with a
dynamic batch.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from labelmint_export.generator.backbone import Backbone, Synthesis
from labelmint_export.generator.checks import check_noise, check_ws
from labelmint_export.generator.config import GeneratorConfig, NoiseMode, SynthesisOutput, TapSpec
from labelmint_export.generator.layers import (
    LRELU_GAIN,
    LRELU_SLOPE,
    FullyConnected,
    binomial_filter,
    blur,
    upsample_2x,
)

CONSTANT_INPUT = "b4.const"
"""Name of the learned input among the features."""


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style, optionally normalised to unit output variance."""

    resample_filter: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, demodulate: bool, up: bool = False) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.up = up
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel * kernel)
        if up:
            self.register_buffer("resample_filter", binomial_filter())

    def forward(self, x: torch.Tensor, styles: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """Convolve.

        Args:
            x: float [N, I, H, W].
            styles: float32 [N, I].
            gain: Factor on the output, applied where it costs no pass over the picture; needs demodulation.

        Returns:
            float [N, O, H, W], or [N, O, 2H, 2W] if the layer upsamples.
        """
        weight = self.weight * self.weight_gain  # [O, I, k, k]
        demodulation = None
        if self.demodulate:
            if x.dtype == torch.float16:  # the demodulation takes the scale out again, and nothing overflows in between
                weight = weight / weight.abs().amax(dim=[1, 2, 3], keepdim=True)
                styles = styles / styles.abs().amax(dim=1, keepdim=True)
            energy = weight.square().sum(dim=[2, 3])  # [O, I]
            demodulation = (functional.linear(styles.square(), energy) + 1e-8).rsqrt() * gain  # [N, O]
        x = x * styles[:, :, None, None].to(x.dtype)
        weight = weight.to(x.dtype)
        if self.up:
            x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [N, O, 2H + 1, 2W + 1]
            x = blur(x, self.resample_filter, (1, 1, 1, 1), gain=4.0)
        else:
            x = functional.conv2d(x, weight, padding=self.weight.shape[2] // 2)
        if demodulation is not None:
            x = x * demodulation[:, :, None, None].to(x.dtype)
        return x


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU. Its output is a feature tap."""

    noise_const: torch.Tensor

    def __init__(
        self, config: GeneratorConfig, in_channels: int, resolution: int, *, up: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        out_channels = config.channels[resolution]
        self.gain = gain * LRELU_GAIN
        self.clamp = None if config.conv_clamp is None else config.conv_clamp * gain
        self.resolution = resolution
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0)
        self.conv = ModulatedConv(in_channels, out_channels, kernel=3, demodulate=True, up=up)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute one layer: float [N, I, H, W] and float32 [N, D] to float [N, O, r, r].

        The activation's gain goes into everything in front of it: leaky ReLU is homogeneous, and so a pass is saved.
        Noise [N or 1, 1, r, r] that is given takes the place of the mode's.
        """
        x = self.conv(x, self.affine(w), self.gain)
        strength = self.noise_strength * self.gain
        if noise is None and noise_mode == "random":
            noise = torch.randn([x.shape[0], 1, self.resolution, self.resolution], device=x.device)
        elif noise is None and noise_mode == "const":
            noise = self.noise_const
        if noise is not None:
            x = x + (noise * strength).to(x.dtype)
        x = x + (self.bias * self.gain)[:, None, None].to(x.dtype)
        x = functional.leaky_relu(x, LRELU_SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """1 x 1 modulated convolution from features to colour, without demodulation."""

    def __init__(self, config: GeneratorConfig, in_channels: int) -> None:
        super().__init__()
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0)
        self.conv = ModulatedConv(in_channels, config.image_channels, kernel=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.clamp = config.conv_clamp

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] and float32 [N, D] to [N, image_channels, H, W] in the dtype of w."""
        y: torch.Tensor = self.conv(x, self.affine(w))
        y = y.to(w.dtype) + self.bias[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class Upsampling1x1(nn.Module):
    """Convolution of a single pixel with twice the resolution behind it: the residual path of a block."""

    resample_filter: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.weight_gain = math.sqrt(0.5) / math.sqrt(in_channels)  # the sum of two paths keeps its variance
        self.register_buffer("resample_filter", binomial_filter())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] to [N, O, 2H, 2W]."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        return upsample_2x(functional.conv2d(x, weight), self.resample_filter)


class SynthesisBlock(nn.Module):
    """The layers of one resolution."""

    resample_filter: torch.Tensor

    def __init__(self, config: GeneratorConfig, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        channels = config.channels[resolution]
        residual = config.architecture == "resnet" and resolution > 4
        if resolution == 4:
            self.constant_input = nn.Parameter(torch.randn(channels, 4, 4))
        else:
            self.conv0 = SynthesisLayer(config, config.channels[resolution // 2], resolution, up=True)
            self.register_buffer("resample_filter", binomial_filter())
        self.conv1 = SynthesisLayer(config, channels, resolution, gain=math.sqrt(0.5) if residual else 1.0)
        self.skip = Upsampling1x1(config.channels[resolution // 2], channels) if residual else None
        has_colours = config.architecture == "skip" or resolution == config.resolution
        self.torgb = ToRGB(config, channels) if has_colours else None


class SynthesisNetwork(Synthesis):
    """ws -> picture and taps. Skip architecture: every block adds its colours to the upsampled picture so far."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({f"b{r}": SynthesisBlock(config, r) for r in config.block_resolutions})

    def block(self, resolution: int) -> SynthesisBlock:
        """The block of one resolution."""
        block = self.blocks[f"b{resolution}"]
        assert isinstance(block, SynthesisBlock)
        return block

    @property
    def tap_specs(self) -> tuple[TapSpec, ...]:
        """The taps in the order in which synthesis makes them."""
        channels = self.config.channels
        return tuple(TapSpec(name, channels[side], side) for name, side in self.config.layer_sides.items())

    @property
    def feature_specs(self) -> tuple[TapSpec, ...]:
        """The constant input in front of the taps."""
        return (TapSpec(CONSTANT_INPUT, self.config.channels[4], 4), *self.tap_specs)

    def forward(
        self,
        ws: torch.Tensor,
        noise_mode: NoiseMode = "const",
        noise: Mapping[str, torch.Tensor] | None = None,
        *,
        compute_dtype: torch.dtype = torch.float32,
    ) -> SynthesisOutput:
        """Paint pictures.

        Args:
            ws: float32 [N, num_ws, w_dim].
            noise_mode: The stored noise, new noise from torch's generator, or none.
            noise: Layer name, such as b8.conv0, -> float32 [N or 1, 1, r, r]; layers that it names ignore the mode.
            compute_dtype: dtype of the feature maps; colours are summed in float32.

        Returns:
            The pictures and their taps.

        Raises:
            GeneratorError: ws or the noise does not fit the generator, or there is no such noise mode.
        """
        check_ws(ws, self.config)
        noise = noise or {}
        check_noise(noise_mode, noise, self.tap_specs, ws.shape[0])
        taps: dict[str, torch.Tensor] = {}
        inputs: dict[str, torch.Tensor] = {}
        image: torch.Tensor | None = None
        x = ws.new_zeros([])
        next_w = 0
        for r in self.config.block_resolutions:
            block = self.block(r)
            residual = None
            if r == 4:
                x = block.constant_input.to(compute_dtype)[None].expand(ws.shape[0], -1, -1, -1)
                x = inputs[CONSTANT_INPUT] = x.contiguous(memory_format=torch.channels_last)
            else:
                residual = None if block.skip is None else block.skip(x)
                name = f"b{r}.conv0"
                x = taps[name] = block.conv0(x, ws[:, next_w], noise_mode, noise.get(name))
                next_w += 1
            name = f"b{r}.conv1"
            x = taps[name] = block.conv1(x, ws[:, next_w], noise_mode, noise.get(name))
            next_w += 1
            if residual is not None:
                x = residual + x
            if block.torgb is not None:
                colours = block.torgb(x, ws[:, next_w])  # shares its w with the next block's first layer
                image = colours if image is None else upsample_2x(image, block.resample_filter) + colours
        assert image is not None
        return SynthesisOutput(image=image, taps=taps, inputs=inputs)


class Generator(Backbone):
    """A StyleGAN2 generator."""

    config: GeneratorConfig
    synthesis: SynthesisNetwork
    family = "stylegan2"

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.synthesis = SynthesisNetwork(config)

    @property
    def architecture(self) -> str:
        """How blocks join."""
        return self.config.architecture
