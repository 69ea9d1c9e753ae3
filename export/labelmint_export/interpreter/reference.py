"""The reference algorithm, written out plainly: upsample every tap, concatenate, run each member on its own, vote.

It is the truth that the fused form is compared with. It goes by strips of rows: the concatenation of a whole picture of
512 x 512 with 5,056 features would be 11 GB in float64.

Legend: N images, M members, C classes, K keypoints, D features, H rows, W columns, h rows of a strip.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch.nn import functional

from labelmint_export.heatmaps import find_peaks
from labelmint_export.interpreter.ensemble import Interpreter, PixelEnsemble
from labelmint_export.interpreter.labels import InterpreterOutput

STRIP_VALUES = 1 << 24
"""About as many features a strip: 134 MB in float64, and a copy."""


def concatenate_taps(taps: Mapping[str, torch.Tensor], names: tuple[str, ...], resolution: int) -> torch.Tensor:
    """Resize every tap directly (bilinear, align_corners false) and stack the channels.

    Args:
        taps: Layer name -> float [N, C_r, r, r].
        names: Order of the channels.
        resolution: H = W.

    Returns:
        float [N, D, H, W].
    """
    size = [resolution, resolution]
    return torch.cat(
        [functional.interpolate(taps[name], size=size, mode="bilinear", align_corners=False) for name in names], dim=1
    )


def concatenate_rows(
    taps: Mapping[str, torch.Tensor], names: tuple[str, ...], resolution: int, rows: slice
) -> torch.Tensor:
    """Give some rows of `concatenate_taps` without making the others: float [N, D, h, W]."""
    parts = []
    for name in names:
        tap = taps[name]
        pixels = torch.eye(tap.shape[-1], dtype=tap.dtype)[None, None]
        spread = functional.interpolate(pixels, size=[resolution, tap.shape[-1]], mode="bilinear", align_corners=False)[
            0, 0
        ]  # [H, r]: what a pixel of the tap counts in each row of the picture, and likewise in each column
        parts.append(spread[rows] @ tap @ spread.t())
    return torch.cat(parts, dim=1)


def _run_members(ensemble: PixelEnsemble, features: torch.Tensor) -> torch.Tensor:
    """Run each member on every pixel: [N, D, H, W] to [N, M, O, H, W]."""
    count, width, height, columns = features.shape
    pixels = features.permute(0, 2, 3, 1).reshape(1, -1, width)  # [1, N * H * W, D]
    members = ensemble.linear1.weight.shape[0]
    outputs: torch.Tensor = ensemble(pixels.expand(members, -1, -1))  # [M, N * H * W, O]
    return outputs.reshape(members, count, height, columns, -1).permute(1, 0, 4, 2, 3)


@torch.no_grad()
def interpret_reference(
    interpreter: Interpreter, taps: Mapping[str, torch.Tensor], vote_rule: str = "majority"
) -> InterpreterOutput:
    """Label pictures the plain way, in the dtype of interpreter and taps.

    Args:
        interpreter: In evaluation mode.
        taps: Layer name -> float [N, C_r, r, r].
        vote_rule: One of `VOTE_RULES`.

    Returns:
        Labels, uncertainty, keypoints, and whether all is finite.
    """
    config = interpreter.config
    names, side = tuple(tap.name for tap in config.taps), config.label_resolution
    width = max(config.num_features, config.num_members * config.hidden_widths[0])
    num_rows = max(1, STRIP_VALUES // (len(taps[names[0]]) * width * side))
    strips = [
        _interpret_strip(interpreter, concatenate_rows(taps, names, side, slice(top, top + num_rows)), vote_rule)
        for top in range(0, side, num_rows)
    ]
    label = torch.cat([strip.label for strip in strips], dim=1)
    divergence = torch.cat([strip.divergence for strip in strips], dim=1)
    keypoints = None
    if interpreter.regressors is not None:
        peaks = find_peaks(torch.cat([strip.heatmaps for strip in strips if strip.heatmaps is not None], dim=2))
        visible = (peaks[..., 2] >= interpreter.visibility_thresholds).to(peaks.dtype)
        keypoints = torch.cat([peaks, visible[..., None]], dim=2)
    finite = torch.stack([strip.finite for strip in strips]).all(dim=0)
    return InterpreterOutput(label.to(torch.uint8), divergence, keypoints, finite)


class _Strip(NamedTuple):
    label: torch.Tensor
    """int64 [N, h, W]."""
    divergence: torch.Tensor
    """[N, h, W]."""
    heatmaps: torch.Tensor | None
    """[N, K, h, W]."""
    finite: torch.Tensor
    """bool [N]: logits and heatmaps are."""


def _interpret_strip(interpreter: Interpreter, features: torch.Tensor, vote_rule: str) -> _Strip:
    """Label the pixels of some rows, [N, D, h, W]."""
    logits = _run_members(interpreter.classifiers, features)
    probs = logits.softmax(dim=2)  # [N, M, C, H, W]
    mean = probs.mean(dim=1)
    if vote_rule == "majority":
        winners = logits.argmax(dim=2)  # [N, M, H, W]
        votes = torch.stack([(winners == c).sum(dim=1) for c in range(interpreter.config.num_classes)], dim=1)
        label = votes.argmax(dim=1)  # torch takes the lowest index of equal values
    elif vote_rule == "mean_probability":
        label = mean.argmax(dim=1)
    else:
        label = logits.mean(dim=1).argmax(dim=1)

    def entropy(p: torch.Tensor, axis: int) -> torch.Tensor:
        terms: torch.Tensor = torch.special.xlogy(p, p)
        return -terms.sum(dim=axis)

    divergence = (entropy(mean, 1) - entropy(probs, 2).mean(dim=1)).clamp(min=0)
    heatmaps, finite = None, torch.isfinite(logits).flatten(1).all(dim=1)
    if interpreter.regressors is not None:
        heatmaps = _run_members(interpreter.regressors, features).mean(dim=1)
        finite = finite & torch.isfinite(heatmaps).flatten(1).all(dim=1)
    return _Strip(label, divergence, heatmaps, finite)
