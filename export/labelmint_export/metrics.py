"""How good masks and keypoints are.

Legend: N images, H rows, W columns, C classes, K keypoints.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint_export.annotations.schema import IGNORE_LABEL


def confusion(predicted: npt.NDArray[np.uint8], true: npt.NDArray[np.uint8], num_classes: int) -> npt.NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Args:
        predicted: uint8 [N, H, W], class ids.
        true: uint8 [N, H, W], class ids; 255 is left out.
        num_classes: C.

    Returns:
        int64 [C, C], rows are the true classes.
    """
    keep = true != IGNORE_LABEL
    pairs = true[keep].astype(np.int64) * num_classes + predicted[keep]
    return np.bincount(pairs, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def iou_per_class(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Intersection over union of each class.

    Args:
        counts: int64 [C, C] from `confusion`, added up over the whole set.

    Returns:
        float64 [C] in [0, 1]; NaN for a class that neither side holds.
    """
    intersection = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - intersection
    iou: npt.NDArray[np.float64] = np.divide(intersection, union, out=np.full(len(counts), np.nan), where=union > 0)
    return iou


def miou(counts: npt.NDArray[np.int64]) -> float:
    """Mean IoU in [0, 1] over the classes that occur on either side; ignored pixels do not count."""
    return float(np.nanmean(iou_per_class(counts)))


def figure_size(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Longer side of the bounding box of everything that is not class 0 (background).

    Args:
        mask: uint8 [N, H, W].

    Returns:
        float64 [N], pixels; the longer side of the frame where a mask holds nothing else.
    """
    sizes = np.full(len(mask), float(max(mask.shape[1:])))
    for index, one in enumerate(mask):
        rows, columns = np.flatnonzero((one != 0).any(axis=1)), np.flatnonzero((one != 0).any(axis=0))
        if len(rows):
            sizes[index] = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return sizes


@dataclass(frozen=True, slots=True)
class KeypointScores:
    """Percentages are shares in [0, 1]."""

    pck_at_0_1: float
    """Truly visible keypoints that lie within 0.1 of the figure's size (PCK, Yang & Ramanan 2013)."""
    pck_at_0_05: float
    """The same within 0.05."""
    visibility_accuracy: float
    """Keypoints whose visibility is right."""
    pck_at_0_1_per_keypoint: tuple[float, ...]
    """NaN for a keypoint that is never visible."""


def keypoint_scores(
    predicted: npt.NDArray[np.float32],
    predicted_visible: npt.NDArray[np.bool_],
    true: npt.NDArray[np.float32],
    size: npt.NDArray[np.float64],
) -> KeypointScores:
    """Score keypoints.

    Args:
        predicted: float32 [N, K, 2], x and y in pixels.
        predicted_visible: bool [N, K].
        true: float32 [N, K, 3], x, y, visible.
        size: float64 [N], pixels, from `figure_size` of the true masks.

    Returns:
        The scores; distances count only where the truth is visible.
    """
    visible = true[..., 2] > 0.5
    distance = np.linalg.norm(predicted - true[..., :2], axis=-1) / size[:, None]
    hits = (distance <= 0.1) & visible
    totals = visible.sum(axis=0)
    per_keypoint = np.divide(hits.sum(axis=0), totals, out=np.full(true.shape[1], np.nan), where=totals > 0)
    count = max(1, int(visible.sum()))
    return KeypointScores(
        pck_at_0_1=float(hits.sum() / count),
        pck_at_0_05=float(((distance <= 0.05) & visible).sum() / count),
        visibility_accuracy=float((predicted_visible == visible).mean()),
        pck_at_0_1_per_keypoint=tuple(float(value) for value in per_keypoint),
    )
