"""Which pixels members learn from.

Small parts hold few pixels: on ToonHead the mouth covers 0.3 % of a picture. Drawing pixels uniformly, as the reference
does, spends most of the work on background. Here a pixel is drawn with a probability that favours rare classes and the
surroundings of keypoints, and its loss is divided by that probability, so that the expected loss stays the uniform one
(importance sampling).

Legend: N images, P pixels of all images, C classes, K keypoints.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PixelSampler:
    """Draws pixels of some pictures."""

    pixels: torch.Tensor
    """int64 [P], flat indices into [N, H, W]."""
    cumulative: torch.Tensor
    """float64 [P], cumulative probability."""
    weights: torch.Tensor
    """float32 [P], 1 / (P * probability)."""

    def draw(self, count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw pixels with replacement: flat indices int64 [count] and loss weights float32 [count]."""
        u = torch.rand(count, generator=random, dtype=torch.float64) * self.cumulative[-1]
        chosen = torch.searchsorted(self.cumulative, u).clamp(max=len(self.pixels) - 1)
        return self.pixels[chosen], self.weights[chosen]


def make_sampler(importance: torch.Tensor, keep: torch.Tensor) -> PixelSampler:
    """Make a sampler.

    Args:
        importance: float [N, H, W], positive; proportional to the probability of a pixel.
        keep: bool [N, H, W], pixels that may be drawn.

    Returns:
        The sampler.
    """
    pixels = keep.flatten().nonzero()[:, 0]
    chosen = importance.flatten()[pixels].double()
    probability = chosen / chosen.sum()
    return PixelSampler(pixels, probability.cumsum(0), (1.0 / (len(pixels) * probability)).float())


def class_importance(masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Importance proportional to one over the square root of the class's share.

    Args:
        masks: uint8 [N, H, W]; 255 is not labelled.
        num_classes: C.

    Returns:
        float32 [N, H, W].
    """
    counts = torch.bincount(masks.flatten().long(), minlength=256).double()
    share = counts[:num_classes] / counts[:num_classes].sum().clamp(min=1)
    table = torch.ones(256, dtype=torch.float64)
    table[:num_classes] = share.clamp(min=1e-6).rsqrt()
    return table[masks.long()].float()


def keypoint_importance(heatmaps: torch.Tensor, floor: float = 0.02) -> torch.Tensor:
    """Importance that follows the largest heatmap value.

    Args:
        heatmaps: float [N, K, H, W], in [0, 1].
        floor: Importance far away from every keypoint.

    Returns:
        float32 [N, H, W].
    """
    return heatmaps.amax(dim=1).float() + floor
