"""Deployed forms of a generator whose feature maps are float16: as few passes over them as its definition allows.

Every operation of a graph that is neither a convolution nor folded into one reads and writes whole feature maps, which
on a GPU takes as long as the convolutions themselves. So biases join what is added or convolved anyway, nothing that
does not depend on a picture is computed for it, and a normalisation is one operation.

The coarsest levels stay in float32: they cost little, and what is rounded there goes through all that follows.

Legend: N images, D w_dim, I input and O output channels of a convolution, C channels, H rows, W columns, r resolution.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from labelmint.v1 import bundle_pb2
from labelmint_export.bundle.deployed_conv import DeployedConv
from labelmint_export.bundle.graphs import (
    CropWindow,
    InterpreterGraph,
    MappingGraph,
    ModelGraph,
    SynthesisGraph,
    bake_gains,
    crop_of_manifest,
    noise_of_manifest,
)
from labelmint_export.errors import BuildError
from labelmint_export.generator import Backbone, NoiseMode, TapSpec, stylegan1, stylegan2
from labelmint_export.generator.layers import LRELU_SLOPE
from labelmint_export.generator.stylegan1 import Convolution, Epilogue, UpsamplingConvolution
from labelmint_export.generator.stylegan2 import ModulatedConv, SynthesisLayer, Upsampling1x1
from labelmint_export.interpreter.ensemble import Interpreter

HALF = torch.float16
FLOAT32_UP_TO = 16
"""Resolution up to which blocks are computed in float32. Rounded too, they cost half of the labels that differ."""


class HalfConvolution(nn.Module):
    """StyleGAN1's convolution with weights and bias in float16.

    Args:
        conv: What was trained, with its gain baked in.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: Convolution) -> None:
        super().__init__()
        self.padding = conv.weight.shape[2] // 2
        self.register_buffer("weight", (conv.weight.detach() * conv.weight_gain).to(HALF))
        self.register_buffer("bias", conv.bias.detach().to(HALF))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] to float16 [N, O, H, W]."""
        return functional.conv2d(x.to(HALF), self.weight, self.bias, padding=self.padding)


class HalfUpsamplingConvolution(nn.Module):
    """StyleGAN1's convolution to twice the resolution: its kernels are summed once, its bias is that of the blur.

    Args:
        conv: What was trained, with its gain baked in.
    """

    weight: torch.Tensor
    blur_weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: UpsamplingConvolution) -> None:
        super().__init__()
        self.channels = conv.weight.shape[0]
        self.register_buffer("weight", conv.transposed_weight().detach().to(HALF))  # [I, O, 4, 4]
        self.register_buffer("blur_weight", conv.blur_filter.detach().to(HALF)[None, None])  # [1, 1, 3, 3]
        self.register_buffer("bias", conv.bias.detach().to(HALF))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] to float16 [N, O, 2H, 2W]."""
        x = functional.conv_transpose2d(x.to(HALF), self.weight, stride=2, padding=1)
        weight = self.blur_weight.expand(self.channels, -1, -1, -1)
        return functional.conv2d(x, weight, self.bias, padding=1, groups=self.channels)


class HalfEpilogue(nn.Module):
    """Noise, leaky ReLU, and adaptive instance normalisation as one normalisation with a scale and shift a map.

    All maps of all pictures are the channels of one picture, so that the operation's own scale and shift, one a
    channel, are those of the style. It takes moments in float32, and rounds once.

    Args:
        epilogue: What was trained, with its gains baked in.
    """

    noise_const: torch.Tensor
    noise_strength: torch.Tensor

    def __init__(self, epilogue: Epilogue) -> None:
        super().__init__()
        self.affine = epilogue.affine
        self.norm_epsilon = epilogue.norm_epsilon
        self.register_buffer("noise_const", epilogue.noise_const.detach().clone())  # [r, r]
        self.register_buffer("noise_strength", epilogue.noise_strength.detach().clone())  # [C]

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map float16 [N, C, r, r] and float32 [N, D] to float16 [N, C, r, r], with the stored noise or none."""
        assert noise is None, "a bundle paints with the stored noise"
        if noise_mode == "const":
            x = x + (self.noise_const * self.noise_strength[:, None, None]).to(x.dtype)
        x = functional.leaky_relu(x, LRELU_SLOPE)
        scale, shift = self.affine(w).chunk(2, dim=1)  # [N, C] each
        channels, height, width = x.shape[1:]
        normal = functional.instance_norm(
            x.reshape(1, -1, height, width),
            weight=(scale + 1.0).reshape(-1).to(x.dtype),
            bias=shift.reshape(-1).to(x.dtype),
            eps=self.norm_epsilon,
        )
        return normal.reshape(-1, channels, height, width)


class HalfSynthesisLayer(nn.Module):
    """StyleGAN2's layer, whose noise and bias are added together.

    Args:
        layer: What was trained, with its gains baked in.
    """

    noise_const: torch.Tensor
    bias: torch.Tensor
    noise_strength: torch.Tensor

    def __init__(self, layer: SynthesisLayer) -> None:
        super().__init__()
        self.affine, self.gain, self.clamp = layer.affine, layer.gain, layer.clamp
        self.conv = DeployedConv(layer.conv, HALF)
        self.register_buffer("noise_const", layer.noise_const.detach().clone())  # [r, r]
        self.register_buffer("noise_strength", layer.noise_strength.detach() * layer.gain)
        self.register_buffer("bias", layer.bias.detach()[:, None, None] * layer.gain)  # [O, 1, 1]

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map float [N, I, H, W] and float32 [N, D] to float16 [N, O, r, r], with the stored noise or none."""
        assert noise is None, "a bundle paints with the stored noise"
        x = self.conv(x.to(HALF), self.affine(w), self.gain)
        added = self.bias
        if noise_mode == "const":
            added = self.noise_const * self.noise_strength + self.bias  # [O, r, r]
        x = functional.leaky_relu(x + added.to(x.dtype), LRELU_SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class HalfSkip(nn.Module):
    """StyleGAN2's residual path, whose first block in float16 is given float32.

    Args:
        skip: What was trained, with its gain baked in.
    """

    def __init__(self, skip: Upsampling1x1) -> None:
        super().__init__()
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [N, I, H, W] to float16 [N, O, 2H, 2W]."""
        y: torch.Tensor = self.skip(x.to(HALF))
        return y


def make_half_synthesis(
    baked: Backbone, taps: tuple[TapSpec, ...], noise_mode: NoiseMode, crop: CropWindow
) -> SynthesisGraph:
    """Put the synthesis of a bundle in float16 together: layers in the forms above, taps in float16.

    Args:
        baked: A generator with its gains baked in. Layers of its synthesis are replaced.
        taps: Those that the interpreter looks at.
        noise_mode: Either const or none.
        crop: Part of the picture that is delivered.

    Raises:
        BuildError: A weight is larger than float16 can hold.
    """
    synthesis, compute_dtype = baked.synthesis, HALF
    if isinstance(synthesis, stylegan1.SynthesisNetwork | stylegan2.SynthesisNetwork):
        for r in synthesis.config.block_resolutions:
            if r > FLOAT32_UP_TO:
                _replace_layers(synthesis.block(r))
        compute_dtype = torch.float32  # the layers in the other forms round what they are given
    check_range(synthesis)
    return SynthesisGraph(baked, taps, noise_mode, crop, compute_dtype, HALF).eval()


def _replace_layers(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        form = _FORMS.get(type(child))
        if form is None:
            _replace_layers(child)
        else:
            setattr(module, name, form(child))


def _deploy_conv(conv: ModulatedConv) -> DeployedConv:
    return DeployedConv(conv, HALF)


# Any: each form takes layers of its own kind.
_FORMS: Mapping[type[nn.Module], Callable[[Any], nn.Module]] = {
    UpsamplingConvolution: HalfUpsamplingConvolution,
    Convolution: HalfConvolution,
    Epilogue: HalfEpilogue,
    SynthesisLayer: HalfSynthesisLayer,
    Upsampling1x1: HalfSkip,
    ModulatedConv: _deploy_conv,
}


def check_range(module: nn.Module) -> None:
    """Refuse a module some of whose weights became infinite in float16.

    Raises:
        BuildError: There are such weights.
    """
    for name, buffer in module.named_buffers():
        if buffer.dtype == HALF and not bool(torch.isfinite(buffer).all()):
            raise BuildError(
                f"precision is 'float16', but {name} holds values beyond {torch.finfo(HALF).max:g}; build the bundle "
                "in float32",
                field="precision",
            )


def make_half_model(generator: Backbone, interpreter: Interpreter, manifest: bundle_pb2.Manifest) -> ModelGraph:
    """Put together what a bundle in float16 holds as graphs.

    Run by torch, operation by operation, it rounds wherever a device rounds that fuses nothing. onnxruntime does not on
    a processor: it computes float16 in float32 there.

    Args:
        generator: As trained, float32.
        interpreter: As trained, float32.
        manifest: Of the bundle, as far as it is known.

    Raises:
        BuildError: A weight is larger than float16 can hold.
    """
    crop, baked = crop_of_manifest(manifest), bake_gains(generator)
    model = ModelGraph(
        MappingGraph(baked, manifest.truncation.cutoff or None),
        make_half_synthesis(baked, interpreter.config.taps, noise_of_manifest(manifest), crop),
        InterpreterGraph(interpreter, manifest.vote_rule, generator.config.resolution, crop, HALF),
    )
    return model.eval().requires_grad_(False)
