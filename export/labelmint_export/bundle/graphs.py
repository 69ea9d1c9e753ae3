"""The modules that are exported: deployed forms with the names, dtypes and layouts of the bundle.

Legend: N images, L num_ws, D w_dim, C_r channels of all taps of resolution r, K keypoints, H and W of the delivered
frame.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from labelmint.graphs import stack_name
from labelmint.v1 import bundle_pb2
from labelmint_export.errors import BuildError
from labelmint_export.generator import Backbone, NoiseMode, TapSpec
from labelmint_export.generator.layers import FullyConnected
from labelmint_export.generator.stylegan1 import Convolution
from labelmint_export.generator.stylegan2 import ModulatedConv, Upsampling1x1
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter, stack_taps


@dataclass(frozen=True, kw_only=True, slots=True)
class CropWindow:
    """Part of the square picture that is delivered, pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_of_manifest(manifest: bundle_pb2.Manifest) -> CropWindow:
    """The part of the picture that a bundle delivers."""
    frame = manifest.frame
    return CropWindow(top=frame.crop_top, left=frame.crop_left, height=frame.image_height, width=frame.image_width)


def noise_of_manifest(manifest: bundle_pb2.Manifest) -> NoiseMode:
    """The noise that a bundle's generator paints with: its stored one, or none."""
    return "const" if manifest.noise_mode == "const" else "none"


def bake_gains(generator: Backbone) -> Backbone:
    """Copy a generator with the run-time gains of equalised learning rate multiplied into its weights."""
    baked = copy.deepcopy(generator).eval()
    with torch.no_grad():
        for module in baked.modules():
            if isinstance(module, FullyConnected | ModulatedConv | Upsampling1x1 | Convolution):
                module.weight.mul_(module.weight_gain)
                module.weight_gain = 1.0
            if isinstance(module, FullyConnected):
                module.bias.mul_(module.bias_gain)
                module.bias_gain = 1.0
    return baked


class MappingGraph(nn.Module):
    """z, (c), truncation_psi -> ws."""

    def __init__(self, generator: Backbone, truncation_cutoff: int | None) -> None:
        super().__init__()
        self.mapping = generator.mapping
        self.truncation_cutoff = truncation_cutoff

    def forward(self, z: torch.Tensor, truncation_psi: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """Map float32 [N, z_dim], float32 [N] and float32 [N, c_dim] to float32 [N, L, D]."""
        ws: torch.Tensor = self.mapping(z, c, truncation_psi, self.truncation_cutoff)
        return ws


class SynthesisGraph(nn.Module):
    """ws -> picture, one stack of taps a resolution, finite."""

    def __init__(
        self,
        generator: Backbone,
        taps: tuple[TapSpec, ...],
        noise_mode: NoiseMode,
        crop: CropWindow,
        compute_dtype: torch.dtype = torch.float32,
        tap_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if noise_mode == "random":
            raise BuildError(
                "noise_mode is 'random', expected const or none: a sample follows from its address", field="noise"
            )
        self.synthesis = generator.synthesis
        self.taps = taps
        self.noise_mode: NoiseMode = noise_mode
        self.crop = crop
        self.compute_dtype = compute_dtype
        self.tap_dtype = tap_dtype or compute_dtype
        self.resolutions = sorted({tap.resolution for tap in taps})

    @property
    def output_names(self) -> list[str]:
        """Names in the order of the outputs."""
        return ["image", *(stack_name(r) for r in self.resolutions), "finite"]

    def forward(self, ws: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Paint float32 [N, L, D]: image uint8 [N, H, W, 3], stacks [N, C_r, r, r] in the taps' dtype, finite."""
        output = self.synthesis(ws, self.noise_mode, compute_dtype=self.compute_dtype)
        image = output.image
        # A sum of zeros: on a GPU onnxruntime reduces truths in float64 by a single block.
        finite = (image - image).flatten(1).sum(dim=1) == 0
        crop = self.crop
        image = image[:, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        image = torch.floor((image * 127.5 + 128.0).clamp(0, 255))
        if image.shape[1] == 1:
            image = image.expand(-1, 3, -1, -1)
        stacks = list(stack_taps(output.features, self.taps).values())
        if self.tap_dtype != self.compute_dtype:
            stacks = [stack.to(self.tap_dtype) for stack in stacks]
        return (image.permute(0, 2, 3, 1).to(torch.uint8), *stacks, finite)


class InterpreterGraph(nn.Module):
    """Stacks of taps -> label, uncertainty map, keypoints, finite."""

    def __init__(
        self,
        interpreter: Interpreter,
        vote_rule: str,
        resolution: int,
        crop: CropWindow,
        projection_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.fused = FusedInterpreter(interpreter, vote_rule, torch.float32, projection_dtype)
        self.crop = crop
        self.cropped = crop != CropWindow(top=0, left=0, height=resolution, width=resolution)
        self.scale = resolution / interpreter.config.label_resolution
        ratio = interpreter.config.label_resolution / resolution
        window = (crop.top * ratio, crop.left * ratio, crop.height * ratio, crop.width * ratio)
        if any(value != int(value) for value in window):
            raise BuildError(f"crop {crop} does not fall on whole label pixels", field="crop")
        self.top, self.left, self.height, self.width = (int(value) for value in window)

    @property
    def input_names(self) -> list[str]:
        """Names in the order of the inputs."""
        return [stack_name(r) for r in self.fused.resolutions]

    @property
    def output_names(self) -> list[str]:
        """Names in the order of the outputs."""
        keypoints = ["keypoints"] if self.fused.regressors is not None else []
        return ["label", "uncertainty_map", *keypoints, "finite"]

    def forward(self, *stacks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Label stacks float32 [N, C_r, r, r], coarse to fine.

        Returns:
            label uint8 [N, h, w], uncertainty_map float16 [N, h, w], keypoints float32 [N, K, 4] in image pixels,
            finite bool [N].
        """
        output = self.fused.interpret(dict(zip(self.input_names, stacks, strict=True)))
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        label = output.label[:, rows, columns].to(torch.uint8)
        uncertainty = output.uncertainty_map[:, rows, columns].to(torch.float16)
        if output.keypoints is None:
            return label, uncertainty, output.finite
        keypoints = output.keypoints
        x = keypoints[..., 0:1] * self.scale - self.crop.left
        y = keypoints[..., 1:2] * self.scale - self.crop.top
        visible = keypoints[..., 3:]
        if self.cropped:  # a point outside the delivered frame cannot be seen in it
            inside = (x >= 0) & (x <= self.crop.width) & (y >= 0) & (y <= self.crop.height)
            visible = visible * inside.to(visible.dtype)
        return label, uncertainty, torch.cat([x, y, keypoints[..., 2:3], visible], dim=2), output.finite


class ModelGraph(nn.Module):
    """The three graphs in turn: z, truncation_psi, (c) -> everything the service sends."""

    def __init__(self, mapping: MappingGraph, synthesis: SynthesisGraph, interpreter: InterpreterGraph) -> None:
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.interpreter = interpreter

    @property
    def output_names(self) -> list[str]:
        """Names in the order of the outputs."""
        return ["image", *self.interpreter.output_names]

    def forward(
        self, z: torch.Tensor, truncation_psi: torch.Tensor, c: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Map float32 [N, z_dim], float32 [N] and float32 [N, c_dim] to image, label, uncertainty_map, ..., finite."""
        image, *stacks, painted = self.synthesis(self.mapping(z, truncation_psi, c))
        *labels, labelled = self.interpreter(*stacks)
        return (image, *labels, painted & labelled)
