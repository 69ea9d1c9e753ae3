"""StyleGAN1 generator with feature taps (Karras et al. 2019, "A Style-Based Generator Architecture for GANs").

Legend: N images, L num_ws, D w_dim, I input and O output channels of a convolution, C channels of a block, H rows,
W columns, r resolution of a block.

Each block runs two epilogues: noise, leaky ReLU, adaptive instance normalisation (section 2, figure 1). The taps are
those of DatasetGAN's program, which differ from its paper: the output of the second epilogue and the raw output of the
convolution in front of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from labelmint_export.generator.backbone import Backbone, MappingLayer, Synthesis
from labelmint_export.generator.bounds import check_positive
from labelmint_export.generator.checks import check_noise, check_ws
from labelmint_export.generator.config import BlockConfig, NoiseMode, SynthesisOutput, TapSpec
from labelmint_export.generator.layers import LRELU_GAIN, LRELU_SLOPE, FullyConnected, binomial_filter, blur

NORM_EPSILON = 1e-5
"""Of DatasetGAN's program, torch's own."""
FUSED_RESOLUTION = 128
"""From this output resolution up the original upsamples by a transposed convolution, below by repeating pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleGAN1Config(BlockConfig):
    """Shape of a StyleGAN1 generator. Everything else follows from the weights."""

    norm_epsilon: float = NORM_EPSILON
    """What is added to the variance in front of the normalisation: the original's is 1e-8."""

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            GeneratorError: A field is out of range.
        """
        BlockConfig.__post_init__(self)
        check_positive(self, ["norm_epsilon"])


class BiasAfterGain(MappingLayer):
    """Mapping layer with the activation's gain on its weights alone, where StyleGAN2 has it on weights and bias."""

    def __init__(self, in_features: int, out_features: int, *, lr_multiplier: float) -> None:
        super().__init__(in_features, out_features, lr_multiplier=lr_multiplier)
        self.activation = "linear"
        self.weight_gain *= LRELU_GAIN

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, in_features] to float [N, out_features]."""
        return functional.leaky_relu(super().forward(x), LRELU_SLOPE)


class Convolution(nn.Module):
    """Convolution with equalised learning rate and a bias."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = gain / math.sqrt(in_channels * kernel**2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] to float [N, O, H, W]."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        return functional.conv2d(x, weight, self.bias.to(x.dtype), padding=self.weight.shape[2] // 2)


class UpsamplingConvolution(Convolution):
    """3 x 3 convolution that doubles the resolution and then blurs."""

    blur_filter: torch.Tensor

    def __init__(self, in_channels: int, out_channels: int, resolution: int) -> None:
        super().__init__(in_channels, out_channels, kernel=3, gain=LRELU_GAIN)
        self.flipped = resolution < FUSED_RESOLUTION
        self.register_buffer("blur_filter", binomial_filter((1.0, 2.0, 1.0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] to float [N, O, 2H, 2W]."""
        x = functional.conv_transpose2d(x, self.transposed_weight().to(x.dtype), stride=2, padding=1)
        return blur(x, self.blur_filter, (1, 1, 1, 1)) + self.bias[:, None, None].to(x.dtype)

    def transposed_weight(self) -> torch.Tensor:
        """Weights of the transposed convolution that both of the original's ways are: float32 [I, O, 4, 4].

        Its 4 x 4 kernel sums four shifted copies of the weights. Repeating each pixel twice and convolving amounts to
        the weights turned by 180 degrees.
        """
        weight = self.weight * self.weight_gain  # [O, I, 3, 3]
        if self.flipped:
            weight = weight.flip([2, 3])
        rows = functional.pad(weight, [0, 0, 0, 1]) + functional.pad(weight, [0, 0, 1, 0])  # [O, I, 4, 3]
        summed = functional.pad(rows, [0, 1]) + functional.pad(rows, [1, 0])  # [O, I, 4, 4]
        return summed.transpose(0, 1)


class Epilogue(nn.Module):
    """What follows each convolution: noise, leaky ReLU, adaptive instance normalisation."""

    noise_const: torch.Tensor

    def __init__(self, config: StyleGAN1Config, resolution: int) -> None:
        super().__init__()
        channels = config.channels[resolution]
        self.resolution = resolution
        self.norm_epsilon = config.norm_epsilon
        self.affine = FullyConnected(config.w_dim, 2 * channels)
        self.noise_strength = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map float [N, C, r, r] and float32 [N, D] to float [N, C, r, r].

        Noise [N or 1, 1, r, r] that is given takes the place of the mode's.
        """
        if noise is None and noise_mode == "random":
            noise = torch.randn([x.shape[0], 1, self.resolution, self.resolution], device=x.device)
        elif noise is None and noise_mode == "const":
            noise = self.noise_const
        if noise is not None:
            x = x + (noise * self.noise_strength[:, None, None]).to(x.dtype)
        return self._normalize(functional.leaky_relu(x, LRELU_SLOPE), self.affine(w))

    def _normalize(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """Give each feature map the mean and the deviation that its style asks for (equation 1).

        Args:
            x: float [N, C, r, r].
            styles: float32 [N, 2C], the deviations less one, then the means.

        Returns:
            float [N, C, r, r].
        """
        scale, mean = styles[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1] each
        if x.dtype == torch.float32 and self.norm_epsilon == NORM_EPSILON:
            # DatasetGAN's program calls this too. It rounds mean / deviation, which the lines below do not; after
            # twelve layers that alone is 1e-4.
            return functional.instance_norm(x, eps=self.norm_epsilon) * (scale + 1.0) + mean
        wide = torch.promote_types(x.dtype, torch.float32)  # moments in half precision lose small deviations
        # Welford's mean of equal pixels is exact. Any rounding of it would come back times 1 / sqrt(epsilon) where maps
        # are flat, as the first ones are without noise.
        variance, average = torch.var_mean(x.to(wide), dim=[2, 3], correction=0, keepdim=True)
        centred = x - average.to(x.dtype)
        factor = (scale + 1.0) * (variance + self.norm_epsilon).rsqrt()
        return centred * factor.to(x.dtype) + mean.to(x.dtype)


class SynthesisBlock(nn.Module):
    """The layers of one resolution."""

    def __init__(self, config: StyleGAN1Config, resolution: int) -> None:
        super().__init__()
        channels = config.channels[resolution]
        if resolution == 4:
            self.constant_input = nn.Parameter(torch.ones(channels, 4, 4))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.conv0 = UpsamplingConvolution(config.channels[resolution // 2], channels, resolution)
        self.epi1 = Epilogue(config, resolution)
        self.conv1 = Convolution(channels, channels, kernel=3, gain=LRELU_GAIN)
        self.epi2 = Epilogue(config, resolution)


class SynthesisNetwork(Synthesis):
    """ws -> picture and taps."""

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({f"b{r}": SynthesisBlock(config, r) for r in config.block_resolutions})
        self.torgb = Convolution(config.channels[config.resolution], config.image_channels, kernel=1, gain=1.0)

    def block(self, resolution: int) -> SynthesisBlock:
        """The block of one resolution."""
        block = self.blocks[f"b{resolution}"]
        assert isinstance(block, SynthesisBlock)
        return block

    @property
    def tap_specs(self) -> tuple[TapSpec, ...]:
        """The taps in the order in which DatasetGAN concatenates them."""
        return tuple(
            TapSpec(f"b{r}.{name}", self.config.channels[r], r)
            for r in self.config.block_resolutions
            for name in ("epi2", "conv1")
        )

    @property
    def noise_specs(self) -> tuple[TapSpec, ...]:
        """The layers that add noise, in their order."""
        return tuple(
            TapSpec(f"b{r}.{name}", self.config.channels[r], r)
            for r in self.config.block_resolutions
            for name in ("epi1", "epi2")
        )

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
            noise: Layer name, such as b8.epi1, -> float32 [N or 1, 1, r, r]; layers that it names ignore the mode.
            compute_dtype: dtype of the feature maps; moments are taken in float32 at least.

        Returns:
            The pictures, in the dtype of ws, and their taps.

        Raises:
            GeneratorError: ws or the noise does not fit the generator, or there is no such noise mode.
        """
        check_ws(ws, self.config)
        noise = noise or {}
        check_noise(noise_mode, noise, self.noise_specs, ws.shape[0])
        taps: dict[str, torch.Tensor] = {}
        x = ws.new_zeros([])
        for index, r in enumerate(self.config.block_resolutions):
            block = self.block(r)
            if r == 4:
                x = (block.constant_input + block.bias[:, None, None]).to(compute_dtype)
                x = x[None].expand(ws.shape[0], -1, -1, -1)
            else:
                x = block.conv0(x)
            x = block.epi1(x, ws[:, 2 * index], noise_mode, noise.get(f"b{r}.epi1"))
            raw = block.conv1(x)
            x = block.epi2(raw, ws[:, 2 * index + 1], noise_mode, noise.get(f"b{r}.epi2"))
            taps |= {f"b{r}.epi2": x, f"b{r}.conv1": raw}
        return SynthesisOutput(image=self.torgb(x).to(ws.dtype), taps=taps)


class StyleGAN1Generator(Backbone):
    """A StyleGAN1 generator."""

    config: StyleGAN1Config
    synthesis: SynthesisNetwork
    family = "stylegan1"

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__(config, BiasAfterGain)
        self.synthesis = SynthesisNetwork(config)

    @property
    def architecture(self) -> str:
        """Blocks in a row, without sums, as StyleGAN2's paper calls it."""
        return "orig"

    @property
    def tap_ws(self) -> tuple[int, ...]:
        """Index of the last w that each tap depends on: a block's second, and its first for the raw convolution."""
        return tuple(2 * index + second for index in range(len(self.config.block_resolutions)) for second in (1, 0))
