"""Labels that are smaller than their pictures: what one can tell apart takes fewer pixels than what looks sharp.

Legend: N pictures, H = W side of the masks, f pixels of a field along an axis, C classes.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from labelmint_export.annotations import AnnotatedSet
from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.errors import AnnotationError

USUAL_MOST = 512
"""Side of the labels that larger pictures get unless told otherwise: DatasetGAN's, for pictures of 1024."""


def shrink_labels(annotated: AnnotatedSet, side: int | None) -> AnnotatedSet:
    """Reduce masks and keypoints to a coarser grid; the pictures stay as they are.

    Args:
        annotated: With masks as large as the pictures.
        side: Of the masks, pixels; None leaves those up to `USUAL_MOST` as they are and reduces larger ones to it.

    Returns:
        The same pictures; a field of f x f pixels has its most frequent class, of equally frequent ones the first, and
        is not labelled where most of it is not. Keypoints are in pixels of the new masks.

    Raises:
        AnnotationError: The side is no 1/f of that of the pictures, for a power of two f.
    """
    height = annotated.masks.shape[1]
    if side is None:
        side = height if height <= USUAL_MOST else next((s for s in _halvings(height) if s <= USUAL_MOST), height)
    if side not in (height, *_halvings(height)):
        raise AnnotationError(
            f"label_resolution is {side}, expected {height}, the side of the pictures, or a half, a quarter and so on; "
            "give one of these or leave it out",
            field="label_resolution",
        )
    field = height // side
    if field == 1:
        return annotated
    masks = np.stack([_most_frequent(mask, field, len(annotated.schema.class_names)) for mask in annotated.masks])
    keypoints = annotated.keypoints * np.array([1 / field, 1 / field, 1], np.float32)
    return replace(annotated, masks=masks, keypoints=keypoints)


def _halvings(side: int) -> list[int]:
    halves = []
    while side % 2 == 0:
        side //= 2
        halves.append(side)
    return halves


def _most_frequent(mask: npt.NDArray[np.uint8], field: int, num_classes: int) -> npt.NDArray[np.uint8]:
    """Reduce one mask: uint8 [H, W] to [H / f, W / f]."""
    fields = mask.reshape(mask.shape[0] // field, field, mask.shape[1] // field, field)
    values = [*range(num_classes), IGNORE_LABEL]
    counts = np.stack([(fields == value).sum(axis=(1, 3)) for value in values])
    most: npt.NDArray[np.uint8] = np.array(values, np.uint8)[counts.argmax(axis=0)]
    return most
