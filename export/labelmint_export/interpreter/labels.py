"""What an interpreter says about pictures.

Legend: N images, K keypoints, H rows, W columns.
"""

from typing import NamedTuple

import torch


class InterpreterOutput(NamedTuple):
    """Labels of N pictures."""

    label: torch.Tensor
    """uint8 [N, H, W], class ids."""
    uncertainty_map: torch.Tensor
    """float [N, H, W]: Jensen-Shannon divergence of the members, nats, at least 0."""
    keypoints: torch.Tensor | None
    """float32 [N, K, 4]: x, y in label pixels (centres at +0.5), score, visibility (0 or 1)."""
    finite: torch.Tensor
    """bool [N]: every logit and heatmap value is finite."""
