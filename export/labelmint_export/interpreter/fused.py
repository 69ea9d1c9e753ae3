"""The interpreter as one pass over the taps' own resolutions, without the concatenated full-resolution tensor.

A linear layer commutes with bilinear resizing, so the first layer of all members is applied where a tap lives: M x h1
sums at r x r instead of H x W. What is left is to bring the sums of the coarse levels to full resolution. Resizing each
of them directly costs a full-size pass a level; a chain of x2 steps is another function. There is an exact way in
between (`knots`): levels are summed on grids that keep the whole function, from coarse to fine. All levels up to H / 4
take it and reach the pixels in one step; the taps of the two finest levels are narrower than the hidden planes, so they
are resized as taps and projected at full resolution.

Everything at full resolution is computed strip by strip, a few rows of the picture from the first layer to the vote, so
that the hidden planes of a strip stay in the processor's cache instead of passing through memory once an operation.

Legend: N images, M members, O outputs, C classes, K keypoints, U hidden units of all members, r level, H = W label
resolution, h rows of a strip, P = h W pixels of a strip.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from labelmint.graphs import VOTE_RULES, stack_name
from labelmint_export.errors import BuildError
from labelmint_export.generator import TapSpec
from labelmint_export.heatmaps import find_peaks
from labelmint_export.interpreter.ensemble import FoldedMembers, Interpreter
from labelmint_export.interpreter.knots import interpolate, knots_to_pixels, level_to_knots, refine_knots
from labelmint_export.interpreter.labels import InterpreterOutput

STRIP_PIXELS = 1024
"""About as many pixels a strip: 1,408 hidden units of them are 6 MB in float32."""
MAX_STRIPS = 32
"""Every strip adds some thirty nodes to an exported graph."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Some rows of the picture, and the rows of the coarse knot grid around them."""

    rows: slice
    knots: slice


def stack_taps(features: Mapping[str, torch.Tensor], taps: Sequence[TapSpec]) -> dict[str, torch.Tensor]:
    """Join the taps of each resolution along the channels: what the deployed interpreter takes.

    Args:
        features: Layer name -> [N, C, r, r], from synthesis.
        taps: Those that an interpreter looks at, in its order.

    Returns:
        `stack_name` -> [N, C_r, r, r], coarse to fine.
    """
    return {
        stack_name(r): torch.cat([features[tap.name] for tap in taps if tap.resolution == r], dim=1)
        for r in sorted({tap.resolution for tap in taps})
    }


def strip_rows(size: int) -> int:
    """Height of the strips of a square picture, pixels."""
    wanted = max(STRIP_PIXELS // size, math.ceil(size / MAX_STRIPS), 1)
    return min(wanted, size)


class FusedMembers(nn.Module):
    """Layers 2 and 3 of all members of one ensemble.

    Args:
        folded: What was trained.
        dtype: Of layer 3 and the outputs.
        hidden_dtype: Of the hidden units and layer 2.
        average: Whether the members' outputs are averaged.
    """

    weight2: torch.Tensor
    bias2: torch.Tensor
    weight3: torch.Tensor
    bias3: torch.Tensor

    def __init__(self, folded: FoldedMembers, dtype: torch.dtype, hidden_dtype: torch.dtype, *, average: bool) -> None:
        super().__init__()
        self.dtype = dtype
        self.members, self.width = folded.bias1.shape
        self.average = average
        weight3, bias3 = folded.weight3, folded.bias3
        if average:  # the mean of linear outputs is one linear layer on all hidden units
            weight3 = weight3.permute(1, 0, 2).flatten(1)[None] / self.members  # [1, O, M * h2]
            bias3 = bias3.mean(dim=0, keepdim=True)
        self.register_buffer("weight2", folded.weight2.to(hidden_dtype))
        self.register_buffer("bias2", folded.bias2[..., None].to(hidden_dtype))
        self.register_buffer("weight3", weight3.to(dtype))
        self.register_buffer("bias3", bias3[..., None].to(dtype))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map rectified hidden units [N, M * h1, P] to outputs [N, M or 1, O, P]."""
        x = hidden.reshape(hidden.shape[0], self.members, self.width, -1)  # [N, M, h1, P]
        x = functional.relu(torch.matmul(self.weight2, x) + self.bias2).to(self.dtype)
        if self.average:
            x = x.flatten(1, 2)[:, None]  # [N, 1, M * h2, P]
        return torch.matmul(self.weight3, x) + self.bias3


class FusedInterpreter(nn.Module):
    """The deployed form of an interpreter.

    Args:
        interpreter: What was trained.
        vote_rule: One of `VOTE_RULES`.
        dtype: Of sums, resizing, the last layer, softmax, vote, divergence and peaks.
        projection_dtype: Of the taps, the hidden units and the matrix products of layers 1 and 2; that of the rest if
            not given. bfloat16 or float16 for devices that are fast in them.

    Raises:
        BuildError: The label resolution is no power of two times or part of a tap's, or the rule is unknown.
    """

    weight_fine: torch.Tensor
    bias1: torch.Tensor
    to_pixels: torch.Tensor
    visibility_thresholds: torch.Tensor

    def __init__(
        self,
        interpreter: Interpreter,
        vote_rule: str = "majority",
        dtype: torch.dtype = torch.float32,
        projection_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.projection_dtype = projection_dtype or dtype
        if vote_rule not in VOTE_RULES:
            raise BuildError(f"vote_rule is {vote_rule!r}, expected one of {', '.join(VOTE_RULES)}", field="vote_rule")
        config = interpreter.config
        self.config = config
        self.vote_rule = vote_rule
        self.resolutions = sorted({tap.resolution for tap in config.taps})
        for r in self.resolutions:
            low, high = sorted((config.label_resolution, r))
            ratio = high // low
            if ratio * low != high or ratio & (ratio - 1):
                raise BuildError(
                    f"label resolution {config.label_resolution} is no power of two times or part of tap resolution "
                    f"{r}; leave that tap out or choose another label resolution",
                    field="label_resolution",
                )
        ensembles = [interpreter.classifiers.fold()]
        if interpreter.regressors is not None:
            ensembles.append(interpreter.regressors.fold())
        self._register_first_layer(ensembles, dtype)
        self.classifiers = FusedMembers(ensembles[0], dtype, self.projection_dtype, average=False)
        self.regressors = (
            FusedMembers(ensembles[1], dtype, self.projection_dtype, average=True) if len(ensembles) == 2 else None
        )
        self.register_buffer("visibility_thresholds", interpreter.visibility_thresholds.to(dtype))

    def _register_first_layer(self, ensembles: list[FoldedMembers], dtype: torch.dtype) -> None:
        weight = torch.cat([e.weight1.flatten(0, 1) for e in ensembles])  # [U, D]
        bias = torch.cat([e.bias1.flatten() for e in ensembles])  # [U]
        size = self.config.label_resolution
        self.coarse = [r for r in self.resolutions if r <= size // 4]
        self.fine = [r for r in self.resolutions if r > size // 4]
        parts: dict[int, list[torch.Tensor]] = {r: [] for r in self.resolutions}
        start = 0
        for tap in self.config.taps:
            parts[tap.resolution].append(weight[:, start : start + tap.channels])
            start += tap.channels
        for r in self.coarse:
            self.register_buffer(f"weight_r{r}", torch.cat(parts[r], dim=1).to(self.projection_dtype))
            self.register_buffer(f"knots_r{r}", level_to_knots(r).to(dtype))
        for low, high in itertools.pairwise(self.coarse):
            self.register_buffer(f"refine_r{low}", refine_knots(low, high).to(dtype))
        to_pixels = knots_to_pixels(self.coarse[-1], size) if self.coarse else torch.zeros(size, 0)
        self.register_buffer("to_pixels", to_pixels.to(dtype))
        self.strips: list[Strip] = []
        step = strip_rows(size)
        for top in range(0, size, step):
            rows = slice(top, min(top + step, size))
            used = to_pixels[rows].any(dim=0).nonzero()[:, 0].tolist()
            self.strips.append(Strip(rows, slice(used[0], used[-1] + 1) if used else slice(0, 0)))
        fine = [torch.cat(parts[r], dim=1) for r in self.fine]
        self.register_buffer(
            "weight_fine", (torch.cat(fine, dim=1) if fine else torch.zeros(0)).to(self.projection_dtype)
        )
        self.register_buffer("bias1", bias[:, None].to(dtype))

    def tables(self) -> dict[str, npt.NDArray[np.float32]]:
        """Everything that was learned, by the names of the buffers: what an engine with kernels of its own needs."""
        return {
            name: buffer.numpy().astype(np.float32)
            for name, buffer in self.named_buffers()
            if name.rpartition(".")[2].startswith(("weight", "bias")) and buffer.numel()
        }

    def _fine_taps(self, stacks: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """The taps of the finest levels at full resolution, [N, C, H, W]; None if there are none."""
        size = self.config.label_resolution
        resized = [
            stacks[stack_name(r)]
            if r == size
            else functional.interpolate(stacks[stack_name(r)], size=[size, size], mode="bilinear")
            for r in self.fine
        ]
        return torch.cat(resized, dim=1) if resized else None

    def _coarse_knots(self, stacks: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """First layer of the coarse levels on their finest knot grid, spread along the rows: [N, U, 2 r + 1, W]."""
        knots: torch.Tensor | None = None
        for index, r in enumerate(self.coarse):
            stack = stacks[stack_name(r)]
            projected = torch.matmul(getattr(self, f"weight_r{r}"), stack.flatten(2)).to(self.dtype)  # [N, U, r * r]
            level = interpolate(projected.reshape(*projected.shape[:2], r, r), getattr(self, f"knots_r{r}"))
            if knots is None:  # the bias joins where it is cheapest: resizing leaves a constant as it is
                level = level + self.bias1[..., None]
            else:
                level = level + interpolate(knots, getattr(self, f"refine_r{self.coarse[index - 1]}"))
            knots = level
        return None if knots is None else torch.matmul(knots, self.to_pixels.t())

    def _hidden(self, fine: torch.Tensor | None, knots: torch.Tensor | None, strip: Strip) -> torch.Tensor:
        """First layer of all members on one strip, rectified: [N, U, P]."""
        total: torch.Tensor | None = None
        if knots is not None:
            total = torch.matmul(self.to_pixels[strip.rows, strip.knots], knots[:, :, strip.knots]).flatten(2)
        if fine is not None:
            projected = torch.matmul(self.weight_fine, fine[:, :, strip.rows].flatten(2)).to(self.dtype)
            total = projected + (self.bias1 if total is None else total)
        assert total is not None
        return functional.relu(total).to(self.projection_dtype)

    def forward(self, stacks: Mapping[str, torch.Tensor]) -> InterpreterOutput:
        """Label pictures.

        Args:
            stacks: `stack_name` -> [N, C_r, r, r] in the projections' dtype, the taps of one resolution in their order.

        Returns:
            Labels uint8, uncertainty in the arithmetic's dtype, keypoints in label pixels.
        """
        output = self.interpret(stacks)
        return output._replace(label=output.label.to(torch.uint8))

    def interpret(self, stacks: Mapping[str, torch.Tensor]) -> InterpreterOutput:
        """Label pictures, with the labels as int64: TensorRT knows uint8 only in the last step of a graph."""
        config = self.config
        size, split = config.label_resolution, config.num_members * config.hidden_widths[0]
        fine, knots = self._fine_taps(stacks), self._coarse_knots(stacks)
        labels, divergences, heatmaps, spreads = [], [], [], []
        for strip in self.strips:
            hidden = self._hidden(fine, knots, strip)
            logits = self.classifiers(hidden[:, :split])  # [N, M, C, P]
            label, divergence = self._vote(logits)
            labels.append(label)
            divergences.append(divergence)
            spreads.append(_not_finite(logits))
            if self.regressors is not None:
                heatmap = self.regressors(hidden[:, split:])[:, 0]  # [N, K, P]
                heatmaps.append(heatmap)
                spreads.append(_not_finite(heatmap))
        finite = torch.stack(spreads, dim=1).sum(dim=1) == 0
        keypoints = None
        if self.regressors is not None:
            heatmap = torch.cat(heatmaps, dim=2)
            peaks = find_peaks(heatmap.reshape(*heatmap.shape[:2], size, size))
            visible = (peaks[..., 2] >= self.visibility_thresholds).to(peaks.dtype)
            keypoints = torch.cat([peaks, visible[..., None]], dim=2)
        label, divergence = torch.cat(labels, dim=1), torch.cat(divergences, dim=1)
        return InterpreterOutput(label.reshape(-1, size, size), divergence.reshape(-1, size, size), keypoints, finite)

    def _vote(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels int64 [N, P] and Jensen-Shannon divergence [N, P] of logits [N, M, C, P]."""
        classes = self.config.num_classes
        log_probs = functional.log_softmax(logits, dim=2)
        probs = log_probs.exp()
        mean = probs.mean(dim=1)  # [N, C, P]
        entropy_of_mean = -(mean * mean.clamp(min=1e-30).log()).sum(dim=1)
        mean_of_entropies = -(probs * log_probs).sum(dim=2).mean(dim=1)
        if self.vote_rule == "majority":
            order = torch.arange(classes, device=logits.device)[:, None]
            winners = logits.argmax(dim=2)  # [N, M, P]
            votes = (winners[:, :, None] == order).to(logits.dtype).sum(dim=1)  # [N, C, P]
            label = (votes * classes + (classes - 1 - order).to(logits.dtype)).argmax(dim=1)
        elif self.vote_rule == "mean_probability":
            label = mean.argmax(dim=1)
        else:
            label = logits.mean(dim=1).argmax(dim=1)
        return label, (entropy_of_mean - mean_of_entropies).clamp(min=0)


def _not_finite(x: torch.Tensor) -> torch.Tensor:
    """Zero for each picture whose values [N, ...] are all finite, else NaN: float [N]."""
    return (x - x).flatten(1).sum(dim=1)
