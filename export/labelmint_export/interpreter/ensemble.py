"""Pixel classifiers, many at once, and the shape of an interpreter.

Legend: N images, M members, B pixels of a batch, D features, C classes, K keypoints, O outputs, h1 and h2 hidden
widths.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from labelmint_export.errors import TrainingError
from labelmint_export.generator import TapSpec
from labelmint_export.ranges import require_at_least, require_positive

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class InterpreterConfig:
    """Shape of an interpreter."""

    taps: tuple[TapSpec, ...]
    """In the order in which their channels are concatenated."""
    label_resolution: int
    """Side of masks and heatmaps, pixels."""
    num_classes: int
    """C, 2 to 255."""
    num_members: int = 10
    """Pixel classifiers that vote."""
    hidden_widths: tuple[int, int] = (128, 32)
    """Of a classifier; the reference takes (128, 32), and (256, 128) from 32 classes."""
    num_keypoints: int = 0
    """K; 0 leaves the keypoint members out."""
    num_keypoint_members: int = 4
    """Regressors whose heatmaps are averaged."""
    keypoint_hidden_widths: tuple[int, int] = (32, 32)
    """Of a regressor."""
    sigma_pixels: float = 2.0
    """Standard deviation of the regressed Gaussian, label pixels."""

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            TrainingError: A field is out of range.
        """
        if not self.taps:
            raise TrainingError("taps is empty, expected at least one feature tap", field="taps")
        if not 2 <= self.num_classes <= 255:
            raise TrainingError(f"num_classes is {self.num_classes}, expected 2 to 255", field="num_classes")
        for tap in self.taps:
            if tap.channels < 1 or tap.resolution < 1:
                raise TrainingError(f"tap {tap} is empty, expected at least one channel and pixel", field="taps")
        require_at_least(self, 1, "label_resolution", "num_members", "num_keypoint_members")
        for name in ("hidden_widths", "keypoint_hidden_widths"):
            if len(getattr(self, name)) != 2 or min(getattr(self, name)) < 1:
                raise TrainingError(f"{name} is {list(getattr(self, name))}, expected two of at least 1", field=name)
        require_at_least(self, 0, "num_keypoints")
        require_positive(self, "sigma_pixels")

    @property
    def num_features(self) -> int:
        """D."""
        return sum(tap.channels for tap in self.taps)


@dataclass(frozen=True, slots=True)
class FoldedMembers:
    """Members with the batch normalisations folded into the layers that follow them."""

    weight1: torch.Tensor
    """[M, h1, D]."""
    bias1: torch.Tensor
    """[M, h1]."""
    weight2: torch.Tensor
    """[M, h2, h1]."""
    bias2: torch.Tensor
    """[M, h2]."""
    weight3: torch.Tensor
    """[M, O, h2]."""
    bias3: torch.Tensor
    """[M, O]."""


class MemberNorm(nn.Module):
    """Batch normalisation of every member on its own pixels: float [M, B, h] to the same."""

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, width))
        self.shift = nn.Parameter(torch.zeros(members, width))
        self.register_buffer("mean", torch.zeros(members, width))
        self.register_buffer("variance", torch.ones(members, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the batch's moments in training, by the running ones otherwise."""
        if self.training:
            variance, mean = torch.var_mean(x, dim=1, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, BN_MOMENTUM)
                self.variance.lerp_(variance * (x.shape[1] / max(1, x.shape[1] - 1)), BN_MOMENTUM)
        else:
            mean, variance = self.mean, self.variance
        factor = self.scale * (variance + BN_EPSILON).rsqrt()
        return x * factor[:, None] + (self.shift - mean * factor)[:, None]

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The map x -> a x + b of evaluation: a, b [M, h]."""
        factor = self.scale * (self.variance + BN_EPSILON).rsqrt()
        return factor, self.shift - self.mean * factor


class MemberLinear(nn.Module):
    """One linear layer a member: float [M, B, in] to [M, B, out]."""

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(in_features)  # torch.nn.Linear's
        self.weight = nn.Parameter(torch.empty(members, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, out_features).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map each member's pixels."""
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))


class PixelEnsemble(nn.Module):
    """M separate pixel MLPs: Linear, ReLU, BN, Linear, ReLU, BN, Linear, as in DatasetGAN's pixel_classifier."""

    def __init__(self, members: int, features: int, hidden_widths: tuple[int, int], outputs: int) -> None:
        super().__init__()
        h1, h2 = hidden_widths
        self.linear1 = MemberLinear(members, features, h1)
        self.norm1 = MemberNorm(members, h1)
        self.linear2 = MemberLinear(members, h1, h2)
        self.norm2 = MemberNorm(members, h2)
        self.linear3 = MemberLinear(members, h2, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float [M, B, D] to float [M, B, O]."""
        x = self.norm1(functional.relu(self.linear1(x)))
        x = self.norm2(functional.relu(self.linear2(x)))
        y: torch.Tensor = self.linear3(x)
        return y

    @torch.no_grad()
    def take_raw(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Make the ensemble of features x out of one of (x - mean) / deviation.

        Args:
            mean: float64 [D].
            deviation: float64 [D], positive.
        """
        weight = self.linear1.weight.double() / deviation
        self.linear1.bias.copy_(self.linear1.bias.double() - weight @ mean)
        self.linear1.weight.copy_(weight)

    @torch.no_grad()
    def fold(self) -> FoldedMembers:
        """Fold each normalisation into the layer behind it; computed in float64, returned in float64."""
        scale1, shift1 = (t.double() for t in self.norm1.affine())
        scale2, shift2 = (t.double() for t in self.norm2.affine())
        weight2, weight3 = self.linear2.weight.double(), self.linear3.weight.double()
        return FoldedMembers(
            weight1=self.linear1.weight.detach().double(),
            bias1=self.linear1.bias.detach().double(),
            weight2=weight2 * scale1[:, None],
            bias2=self.linear2.bias.double() + torch.einsum("moi,mi->mo", weight2, shift1),
            weight3=weight3 * scale2[:, None],
            bias3=self.linear3.bias.double() + torch.einsum("moi,mi->mo", weight3, shift2),
        )


class Interpreter(nn.Module):
    """Pixel classifiers and keypoint regressors with their shape."""

    visibility_thresholds: torch.Tensor

    def __init__(self, config: InterpreterConfig) -> None:
        super().__init__()
        self.config = config
        self.classifiers = PixelEnsemble(
            config.num_members, config.num_features, config.hidden_widths, config.num_classes
        )
        self.regressors = (
            PixelEnsemble(
                config.num_keypoint_members, config.num_features, config.keypoint_hidden_widths, config.num_keypoints
            )
            if config.num_keypoints
            else None
        )
        self.register_buffer("visibility_thresholds", torch.full([config.num_keypoints], 0.5))
