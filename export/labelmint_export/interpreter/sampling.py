"""Which pixels members learn from, and how much each counts.

Small parts hold few pixels: on ToonHead the mouth covers 0.3 % of a picture. Drawing pixels uniformly, as the reference
does, spends most of the work on background. Here a pixel is drawn with a probability that favours rare classes and the
surroundings of keypoints, and its loss is divided by that probability, so that the expected loss is that of uniformly
drawn pixels (importance sampling). What rare classes count for in that loss is decided apart, by `class_weights`.

Legend: N images, P pixels of all images, C classes, K keypoints.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PixelMasses:
    """How often each pixel of some pictures is to be drawn; shared by the samplers of all members."""

    importance: torch.Tensor
    """float [N, H, W], positive; proportional to the probability of a pixel."""
    cumulative: torch.Tensor
    """float64 [P], sum of the importance up to each pixel, those that may not be drawn counting nothing."""
    kept_in_row: torch.Tensor
    """int64 [N, H], pixels that may be drawn."""
    last_kept: torch.Tensor
    """int64 [N * H], flat index of the last pixel of a row that may be drawn."""


def make_masses(importance: torch.Tensor, keep: torch.Tensor) -> PixelMasses:
    """Prepare pixels for samplers.

    Args:
        importance: float [N, H, W], positive; proportional to the probability of a pixel.
        keep: bool [N, H, W], pixels that may be drawn.
    """
    width = keep.shape[2]
    cumulative = (importance * keep).flatten().cumsum(0, dtype=torch.float64)
    last_in_row = width - 1 - keep.flatten(0, 1).flip(1).int().argmax(dim=1)  # [N * H]
    return PixelMasses(importance, cumulative, keep.sum(dim=2), torch.arange(len(last_in_row)) * width + last_in_row)


class PixelSampler:
    """Draws pixels from some rows of some pictures.

    Args:
        masses: Of all pixels.
        rows: bool [N, H], rows that may be drawn from; at least one pixel of them may.
    """

    def __init__(self, masses: PixelMasses, rows: torch.Tensor) -> None:
        self._masses = masses
        ends = masses.cumulative.view(rows.numel(), -1)[:, -1]
        self._starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        self._row_mass = (ends - self._starts) * rows.flatten()
        self._row_cumulative = self._row_mass.cumsum(0)
        self._last_row = int(self._row_mass.nonzero()[-1])
        self._count = int(masses.kept_in_row[rows].sum())

    def draw(self, count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw pixels with replacement.

        Returns:
            Flat indices int64 [count] into [N, H, W], and loss weights float32 [count]: 1 / (P * probability), P being
            the number of pixels that may be drawn.
        """
        total = self._row_cumulative[-1]
        u = torch.rand(count, generator=random, dtype=torch.float64) * total
        row = torch.searchsorted(self._row_cumulative, u, right=True).clamp(max=self._last_row)
        inside = (u - (self._row_cumulative[row] - self._row_mass[row])).clamp(min=0)
        pixel = torch.searchsorted(self._masses.cumulative, self._starts[row] + inside, right=True)
        pixel = torch.minimum(pixel, self._masses.last_kept[row])  # sums round
        return pixel, (total / (self._count * self._masses.importance.flatten()[pixel].double())).float()


def class_importance(masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Importance proportional to one over the square root of the class's share.

    Args:
        masks: uint8 [N, H, W]; 255 is not labelled.
        num_classes: C.

    Returns:
        float32 [N, H, W].
    """
    table = torch.ones(256, dtype=torch.float64)
    table[:num_classes] = _class_shares(masks, num_classes).rsqrt()
    return table[masks.long()].float()


def class_weights(masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Weights of the classes in the loss: one over the fourth root of the class's share, 1 on average over the pixels.

    A mean of IoUs counts every class alike, the plain loss every pixel. The plain loss gives a pixel to the likelier
    class; the best F1 of a class, and so its best IoU, is reached where the class gets what belongs to it with a
    probability of more than half that F1 (Lipton et al. 2014, "Optimal Thresholding of Classifiers to Maximize F1
    Measure").

    Args:
        masks: uint8 [N, H, W]; 255 is not labelled.
        num_classes: C.

    Returns:
        float32 [C].
    """
    share = _class_shares(masks, num_classes)
    weights = share.pow(-0.25)
    return (weights / (weights * share).sum()).float()


def _class_shares(masks: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Share of each class in the labelled pixels, at least a millionth: float64 [C]."""
    counts = torch.bincount(masks.flatten().long(), minlength=256)[:num_classes].double()
    return (counts / counts.sum().clamp(min=1)).clamp(min=1e-6)


def keypoint_importance(heatmaps: torch.Tensor, floor: float = 0.02) -> torch.Tensor:
    """Importance that follows the largest heatmap value.

    Args:
        heatmaps: float [N, K, H, W], in [0, 1].
        floor: Importance far away from every keypoint.

    Returns:
        float32 [N, H, W].
    """
    return heatmaps.amax(dim=1).float() + floor
