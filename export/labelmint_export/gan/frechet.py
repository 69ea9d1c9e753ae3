"""Frechet distance in the feature space of a segmentation network (the idea of Heusel et al. 2017, without Inception).

The network was trained on the rendered set alone, so nothing is downloaded. Its features are the mean and
the deviation of each channel of every encoder level. Values compare only between generators measured with the same
network and the same number of pictures.

Legend: N images, D features.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch

from labelmint_export.errors import DatasetError
from labelmint_export.oracle.network import Segmenter
from labelmint_export.pictures import to_range


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Mean and covariance of features."""

    mean: npt.NDArray[np.float64]
    """[D]."""
    covariance: npt.NDArray[np.float64]
    """[D, D]."""


@torch.no_grad()
def features_of(network: Segmenter, pictures: npt.NDArray[np.uint8], resolution: int) -> npt.NDArray[np.float64]:
    """Compute features.

    Args:
        network: In evaluation mode; computes where it lies.
        pictures: uint8 [N, H, W, 3]; larger than `resolution` by a whole factor, or equal.
        resolution: Pictures are averaged down to this side first.

    Returns:
        float64 [N, D]: mean and deviation of each channel of each encoder level.

    Raises:
        DatasetError: H is no multiple of resolution.
    """
    parts = []
    for start in range(0, len(pictures), 50):
        levels = network.encode(to_range(pictures[start : start + 50], resolution, network.head.weight.device))
        moments = [moment for level in levels for moment in (level.mean(dim=[2, 3]), _deviation(level))]
        parts.append(torch.cat(moments, dim=1).double().cpu().numpy())
    return np.concatenate(parts)


def _deviation(level: torch.Tensor) -> torch.Tensor:
    """Deviation over the pixels of each channel [N, C, H, W], 0 for a single pixel."""
    if level.shape[2] * level.shape[3] == 1:
        return torch.zeros_like(level[:, :, 0, 0])
    return level.std(dim=[2, 3])


def statistics_of(network: Segmenter, pictures: npt.NDArray[np.uint8], resolution: int) -> FeatureStatistics:
    """Mean and covariance of the features of at least two pictures; see `features_of`.

    Raises:
        DatasetError: There are fewer pictures, or H is no multiple of resolution.
    """
    if len(pictures) < 2:
        raise DatasetError(f"count is {len(pictures)} pictures, expected at least 2 for a covariance", field="count")
    features = features_of(network, pictures, resolution)
    return FeatureStatistics(features.mean(axis=0), np.cov(features, rowvar=False))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Squared Frechet distance of two Gaussians: |m - n|^2 + tr(C + D - 2 (C D)^(1/2)) (Dowson & Landau 1982)."""
    difference = a.mean - b.mean
    eigenvalues = scipy.linalg.eigvals(a.covariance @ b.covariance)
    trace_of_root = float(np.sqrt(np.maximum(eigenvalues.real, 0.0)).sum())
    total = float(np.trace(a.covariance) + np.trace(b.covariance))
    return float(difference @ difference) + total - 2.0 * trace_of_root
