"""StyleGAN3 generator with feature taps (Karras et al. 2021, "Alias-Free Generative Adversarial Networks").

Legend: N images, L num_ws, D w_dim, I and O channels, F Fourier features, H rows, W columns, T taps of a filter.

Names of the synthesis's parameters and buffers are those of the checkpoints that people hold: `synthesis.input.freqs`,
`synthesis.L0_36_512.affine.bias`. As in the StyleGAN2 module, the modulated convolution scales
activations instead of weights, so it exports with a dynamic batch. T and R differ in their configuration alone.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from labelmint_export.generator.backbone import Backbone, Synthesis
from labelmint_export.generator.checks import check_noise, check_ws
from labelmint_export.generator.config import NoiseMode, SynthesisOutput, TapSpec
from labelmint_export.generator.layers import LRELU_GAIN, LRELU_SLOPE, FullyConnected
from labelmint_export.generator.stylegan3_config import StyleGAN3Config, StyleGAN3LayerConfig


def upsample(x: torch.Tensor, line: torch.Tensor, factor: int, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """Put zeros between the pixels and filter rows and columns, keeping the mean.

    Args:
        x: float [N, O, H, W].
        line: float [T], sum one.
        factor: The number of pixels that each pixel becomes along an axis.
        padding: Pixels added on the left, right, top and bottom in front of the filter; negative ones are cropped.

    Returns:
        float [N, O, H * factor + top + bottom - T + 1, W * factor + left + right - T + 1].
    """
    channels, taps = x.shape[1], line.shape[0]
    weight = (line * factor).to(x.dtype).expand(channels, 1, 1, taps)
    # The transposed convolution gives all that any input pixel reaches; see how much of that is beyond each border.
    left, right, top, bottom = (
        taps - (1 if side in (0, 2) else factor) - pixels for side, pixels in enumerate(padding)
    )
    along_w, along_h = max(0, min(left, right)), max(0, min(top, bottom))
    x = functional.conv_transpose2d(x, weight, stride=(1, factor), padding=(0, along_w), groups=channels)
    weight = weight.transpose(2, 3)
    x = functional.conv_transpose2d(x, weight, stride=(factor, 1), padding=(along_h, 0), groups=channels)
    rest = [along_w - left, along_w - right, along_h - top, along_h - bottom]
    return functional.pad(x, rest) if any(rest) else x


def downsample(x: torch.Tensor, kernel: torch.Tensor, factor: int) -> torch.Tensor:
    """Filter, then keep every `factor`-th pixel, without padding.

    Args:
        x: float [N, O, H, W].
        kernel: float [T] for rows and columns in turn, or [T, T].
        factor: The number of pixels that become one along an axis.

    Returns:
        float [N, O, (H - T) // factor + 1, (W - T) // factor + 1].
    """
    channels, taps = x.shape[1], kernel.shape[-1]
    kernel = kernel.to(x.dtype)
    if kernel.ndim == 2:
        return functional.conv2d(x, kernel.flip([0, 1]).expand(channels, 1, -1, -1), stride=factor, groups=channels)
    weight = kernel.flip([0]).expand(channels, 1, 1, taps)
    x = functional.conv2d(x, weight, stride=(1, factor), groups=channels)
    return functional.conv2d(x, weight.transpose(2, 3), stride=(factor, 1), groups=channels)


class SynthesisInput(nn.Module):
    """Fourier features (section 3.1), turned and moved by the style (section 3.2) and by a transform users may set."""

    freqs: torch.Tensor
    phases: torch.Tensor
    transform: torch.Tensor

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.size = config.input_size
        self.sampling_rate = config.input_sampling_rate
        self.bandwidth = config.input_bandwidth
        self.affine = FullyConnected(config.w_dim, 4)
        with torch.no_grad():  # neither turned nor moved
            self.affine.weight.zero_()
            self.affine.bias[0] = 1.0
        self.weight = nn.Parameter(torch.randn(config.input_channels, config.input_channels))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", torch.randn(config.input_channels, 2))
        self.register_buffer("phases", torch.rand(config.input_channels))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """Sample the features.

        Args:
            w: float [N, D].

        Returns:
            float [N, F, size, size] in the dtype of w.
        """
        cosine, sine, shift_x, shift_y = self.affine(w).unbind(dim=1)  # [N] each
        length = (cosine.square() + sine.square()).sqrt()
        rotation = torch.stack([cosine, -sine, sine, cosine], dim=1) / length[:, None]
        rotation = rotation.unflatten(1, (2, 2))  # [N, 2, 2], from points of the picture to points of the features
        shift = torch.stack([shift_x, shift_y], dim=1) / length[:, None]  # [N, 2], points of the user's picture
        moved = (self.transform[:2, 2] - shift)[:, :, None]  # [N, 2, 1]
        phases = self.phases + (self.freqs @ (rotation @ moved)).squeeze(2)  # [N, F]
        freqs = self.freqs @ (rotation @ self.transform[:2, :2])  # [N, F, 2]
        # What the transform has pushed above the Nyquist limit fades out.
        excess = (freqs.square().sum(dim=2).sqrt() - self.bandwidth) / (self.sampling_rate / 2 - self.bandwidth)
        amplitudes = (1.0 - excess).clamp(0.0, 1.0)  # [N, F]

        # Coordinates of the pixels' centres: the picture lies in [-0.5, 0.5], the margin beyond.
        line = torch.arange(self.size, dtype=w.dtype, device=w.device)
        line = (line + (0.5 - self.size / 2)) / self.sampling_rate
        along_x = freqs[:, :, :1] * line  # [N, F, W]
        along_y = freqs[:, :, 1:] * line + phases[:, :, None]  # [N, F, H]
        waves = torch.sin((along_x[:, :, None, :] + along_y[:, :, :, None]) * (2.0 * math.pi))  # [N, F, H, W]
        waves = waves * amplitudes[:, :, None, None]
        weight = self.weight / math.sqrt(self.weight.shape[1])
        return functional.conv2d(waves, weight[:, :, None, None])


class SynthesisLayer(nn.Module):
    """Modulated convolution and a leaky ReLU between two resamplings. Its output is a feature tap."""

    magnitude_ema: torch.Tensor
    up_filter: torch.Tensor
    down_filter: torch.Tensor

    def __init__(self, config: StyleGAN3LayerConfig, w_dim: int) -> None:
        super().__init__()
        self.config = config
        self.affine = FullyConnected(w_dim, config.in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(config.out_channels, config.in_channels, config.kernel, config.kernel))
        self.bias = nn.Parameter(torch.zeros(config.out_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        # A flat filter is a poor one; the stored ones replace it.
        if config.up_taps > 1:
            self.register_buffer("up_filter", torch.full([config.up_taps], 1.0 / config.up_taps))
        if config.down_taps > 1:
            axes = 2 if config.down_radial else 1
            self.register_buffer("down_filter", torch.full([config.down_taps] * axes, config.down_taps**-axes))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Compute one layer.

        Args:
            x: float [N, I, in_size, in_size].
            w: float [N, D].

        Returns:
            float [N, O, out_size, out_size] in the dtype of x.
        """
        config = self.config
        x = self.convolve(x, w)
        if config.up_taps > 1:
            x = upsample(x, self.up_filter, config.up_factor, config.padding)
        elif any(config.padding):
            x = functional.pad(x, list(config.padding))
        if not config.is_torgb:
            x = functional.leaky_relu(x, LRELU_SLOPE)
        if config.conv_clamp is not None:
            x = x.clamp(-config.conv_clamp, config.conv_clamp)
        if config.down_taps > 1:
            x = downsample(x, self.down_filter, config.down_factor)
        return x

    def convolve(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Convolve and add the bias: float [N, I, H, W] and [N, D] to [N, O, H + k - 1, W + k - 1].

        Both include the leaky ReLU's gain: all that comes between is linear and leaky ReLU is homogeneous.
        """
        styles = self.affine(w)  # [N, I]
        weight: torch.Tensor = self.weight
        bias: torch.Tensor = self.bias
        gain = self.magnitude_ema.rsqrt()  # to unit variance of x, as measured in training (section 3.1)
        if self.config.is_torgb:
            scale = (gain / math.sqrt(weight[0].numel())).expand(styles.shape[0], weight.shape[0])  # [N, O]
        else:
            # Unit magnitude in front of demodulation keeps half precision in range. The styles of each image are
            # normalised by themselves, those of others do not matter: demodulation takes the factor back.
            weight = weight * weight.square().mean(dim=[1, 2, 3], keepdim=True).rsqrt()
            styles = styles * styles.square().mean(dim=1, keepdim=True).rsqrt()
            energy = weight.square().sum(dim=[2, 3])  # [O, I]
            scale = (functional.linear(styles.square(), energy) + 1e-8).rsqrt() * (gain * LRELU_GAIN)  # [N, O]
            bias = bias * LRELU_GAIN
        x = x * styles[:, :, None, None].to(x.dtype)
        x = functional.conv2d(x, weight.to(x.dtype), padding=self.config.kernel - 1)
        return x * scale[:, :, None, None].to(x.dtype) + bias[:, None, None].to(x.dtype)


class SynthesisNetwork(Synthesis):
    """ws -> picture and taps."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        self.input = SynthesisInput(config)
        for layer in config.layers:
            self.add_module(layer.name, SynthesisLayer(layer, config.w_dim))

    @property
    def tap_specs(self) -> tuple[TapSpec, ...]:
        """The taps in the order in which synthesis makes them; `config.layers` tells their margins."""
        return tuple(TapSpec(layer.name, layer.out_channels, layer.out_size) for layer in self.config.layers)

    @property
    def feature_specs(self) -> tuple[TapSpec, ...]:
        """The taps without their margins."""
        return tuple(TapSpec(layer.name, layer.out_channels, layer.out_sampling_rate) for layer in self.config.layers)

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
            noise_mode: Without effect.
            noise: None or empty; no layer has noise.
            compute_dtype: dtype of the feature maps; the Fourier features are made in the dtype of ws.

        Returns:
            The pictures, in the dtype of ws, and their taps; the last tap is the picture before `output_scale`.

        Raises:
            GeneratorError: ws or the noise does not fit the generator, or there is no such noise mode.
        """
        check_ws(ws, self.config)
        check_noise(noise_mode, noise or {}, (), ws.shape[0])
        taps: dict[str, torch.Tensor] = {}
        x = self.input(ws[:, 0]).to(compute_dtype)
        for index, layer in enumerate(self.config.layers, start=1):
            x = taps[layer.name] = self.get_submodule(layer.name)(x, ws[:, index])
        margins = {layer.name: layer.margin for layer in self.config.layers}
        return SynthesisOutput(image=x.to(ws.dtype) * self.config.output_scale, taps=taps, margins=margins)


class StyleGAN3Generator(Backbone):
    """A StyleGAN3 generator."""

    config: StyleGAN3Config
    synthesis: SynthesisNetwork
    family = "stylegan3"

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__(config)
        self.synthesis = SynthesisNetwork(config)

    @property
    def architecture(self) -> str:
        """`r` turns with the picture, by filters that are square and not separable; `t` only moves."""
        return "r" if any(layer.down_radial for layer in self.config.layers) else "t"

    @property
    def tap_ws(self) -> tuple[int, ...]:
        """Index of the last w that each tap depends on; the first w moves the Fourier features."""
        return tuple(range(1, 1 + len(self.tap_specs)))
