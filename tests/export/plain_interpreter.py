"""The interpreter from the text of its definitions: member by member, pixel by pixel, no code of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch.nn import functional

from labelmint_export.interpreter.ensemble import Interpreter, PixelEnsemble


class PlainLabels(NamedTuple):
    """float64 labels of N pictures."""

    label: torch.Tensor
    """uint8 [N, H, W]."""
    uncertainty_map: torch.Tensor
    """[N, H, W], nats."""
    keypoints: torch.Tensor
    """[N, K, 4]: x, y in label pixels, score, visibility."""
    peak_margin: torch.Tensor
    """[N, K]: how far the largest value of a heatmap lies above the second; on a plateau rounding chooses the place."""


def plain_labels(interpreter: Interpreter, taps: Mapping[str, torch.Tensor], rule: str) -> PlainLabels:
    """Label float taps [N, C, r, r], with ties to the lowest class under the rule "majority"."""
    config = interpreter.config
    side = config.label_resolution
    features = torch.cat(
        [functional.interpolate(taps[t.name].double(), size=[side, side], mode="bilinear") for t in config.taps], dim=1
    )
    pixels = features.permute(0, 2, 3, 1).flatten(0, 2)  # [P, D]

    def run(ensemble: PixelEnsemble, member: int) -> torch.Tensor:
        weights: dict[str, torch.Tensor] = {name: t.double() for name, t in ensemble.state_dict().items()}
        x = pixels
        for layer in (1, 2):
            x = functional.relu(x @ weights[f"linear{layer}.weight"][member].T + weights[f"linear{layer}.bias"][member])
            mean, variance = weights[f"norm{layer}.mean"][member], weights[f"norm{layer}.variance"][member]
            x = (x - mean) / (variance + 1e-5).sqrt()
            x = x * weights[f"norm{layer}.scale"][member] + weights[f"norm{layer}.shift"][member]
        return x @ weights["linear3.weight"][member].T + weights["linear3.bias"][member]

    logits = torch.stack([run(interpreter.classifiers, m) for m in range(config.num_members)])  # [M, P, C]
    probs = torch.exp(logits - logits.logsumexp(dim=2, keepdim=True))
    mean = probs.mean(dim=0)
    divergence = (-torch.special.xlogy(mean, mean).sum(1)) - (-torch.special.xlogy(probs, probs).sum(2)).mean(0)
    if rule == "majority":
        winners = logits.argmax(dim=2)
        label = torch.tensor([_most_frequent(votes) for votes in winners.T.tolist()])
    else:
        label = (mean if rule == "mean_probability" else logits.mean(dim=0)).argmax(dim=1)
    shape = (len(features), side, side)
    keypoints, peak_margin = torch.zeros(len(features), 0, 4), torch.zeros(len(features), 0)
    if interpreter.regressors is not None:
        members = config.num_keypoint_members
        heatmaps = sum((run(interpreter.regressors, m) for m in range(members)), torch.zeros(())) / members
        keypoints = _peaks(heatmaps.view(*shape, -1), interpreter.visibility_thresholds.double())
        largest = heatmaps.view(len(features), side * side, -1).topk(2, dim=1).values  # [N, 2, K]
        peak_margin = largest[:, 0] - largest[:, 1]
    uncertainty_map = divergence.clamp(min=0).view(shape)
    return PlainLabels(label.view(shape).to(torch.uint8), uncertainty_map, keypoints, peak_margin)


def _most_frequent(votes: list[int]) -> int:
    """The class with the most votes, the lowest of those that tie."""
    return min(set(votes), key=lambda label: (-votes.count(label), label))


def _peaks(heatmaps: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """[N, H, W, K] to [N, K, 4], one heatmap at a time."""
    found = []
    for image in heatmaps:
        points = []
        for k, threshold in enumerate(thresholds.tolist()):
            values = image[..., k]
            row, column = divmod(int(values.argmax()), values.shape[1])
            peak = float(values[row, column])

            def vertex(line: list[float], at: int, peak: float = peak) -> float:
                if not 0 < at < len(line) - 1:
                    return at + 0.5
                low, high = line[at - 1], line[at + 1]
                curvature = 2 * peak - low - high
                return at + 0.5 + (min(max((high - low) / (2 * curvature), -0.5), 0.5) if curvature > 0 else 0.0)

            x, y = vertex(values[row].tolist(), column), vertex(values[:, column].tolist(), row)
            points.append([x, y, peak, float(peak >= threshold)])
        found.append(points)
    return torch.tensor(found, dtype=torch.float64)
