"""The reference algorithm, written out plainly: upsample every tap, concatenate, run each member on its own, vote.

It is the truth that the fused form is compared with, and needs memory for the whole concatenation.

Legend: N images, M members, C classes, K keypoints, D features, H rows, W columns.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

from labelmint_export.heatmaps import find_peaks
from labelmint_export.interpreter.ensemble import Interpreter, PixelEnsemble
from labelmint_export.interpreter.labels import InterpreterOutput


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
        Labels, uncertainty, keypoints and logits.
    """
    config = interpreter.config
    names = tuple(tap.name for tap in config.taps)
    features = concatenate_taps(taps, names, config.label_resolution)
    logits = _run_members(interpreter.classifiers, features)
    probs = logits.softmax(dim=2)  # [N, M, C, H, W]
    mean = probs.mean(dim=1)
    if vote_rule == "majority":
        winners = logits.argmax(dim=2)  # [N, M, H, W]
        votes = torch.stack([(winners == c).sum(dim=1) for c in range(config.num_classes)], dim=1)
        label = votes.argmax(dim=1)  # torch takes the lowest index of equal values
    elif vote_rule == "mean_probability":
        label = mean.argmax(dim=1)
    else:
        label = logits.mean(dim=1).argmax(dim=1)

    def entropy(p: torch.Tensor, axis: int) -> torch.Tensor:
        terms: torch.Tensor = torch.special.xlogy(p, p)
        return -terms.sum(dim=axis)

    divergence = (entropy(mean, 1) - entropy(probs, 2).mean(dim=1)).clamp(min=0)
    keypoints = None
    if interpreter.regressors is not None:
        peaks = find_peaks(_run_members(interpreter.regressors, features).mean(dim=1))
        visible = (peaks[..., 2] >= interpreter.visibility_thresholds).to(peaks.dtype)
        keypoints = torch.cat([peaks, visible[..., None]], dim=2)
    finite = torch.isfinite(logits).flatten(1).all(dim=1)
    return InterpreterOutput(label.to(torch.uint8), divergence, keypoints, finite)
