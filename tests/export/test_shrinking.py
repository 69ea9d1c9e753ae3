"""Labels that are smaller than their pictures, against a count of every field by itself."""

from collections import Counter

import numpy as np
import pytest
import torch

from labelmint_export.annotations import AnnotatedSet, AnnotationSchema
from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.errors import AnnotationError
from labelmint_export.interpreter.shrinking import shrink_labels


def make_set(side: int) -> AnnotatedSet:
    """Two pictures with masks of noise, in which fields are torn and often half unlabelled."""
    random = np.random.default_rng(0)
    schema = AnnotationSchema(
        class_names=("ground", "cat", "ear"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)), keypoint_names=("nose",)
    )
    masks = random.choice(np.array([0, 1, 2, IGNORE_LABEL], np.uint8), (2, side, side))
    masks[1, : side // 2] = IGNORE_LABEL
    keypoints = np.array([[[5.5, 12.0, 1.0]], [[0.0, 0.0, 0.0]]], np.float32)
    pictures = np.zeros((2, side, side, 3), np.uint8)
    return AnnotatedSet(
        schema=schema, pictures=pictures, masks=masks, keypoints=keypoints, z=torch.zeros(2, 4), ws=torch.zeros(2, 3, 4)
    )


@pytest.mark.parametrize(("side", "field"), [(16, 1), (8, 2), (4, 4)])
def test_field_has_its_most_frequent_class(side: int, field: int) -> None:
    annotated = make_set(16)
    shrunk = shrink_labels(annotated, side)
    assert shrunk.masks.shape == (2, side, side)
    assert shrunk.masks.dtype == np.uint8
    for picture, y, x in np.ndindex(2, side, side):
        pixels = annotated.masks[picture, y * field : (y + 1) * field, x * field : (x + 1) * field].flatten().tolist()
        counts = Counter(sorted(pixels))  # the first of equally frequent ones comes first
        assert shrunk.masks[picture, y, x] == counts.most_common(1)[0][0]
    assert np.array_equal(shrunk.keypoints[0, 0], np.array([5.5 / field, 12.0 / field, 1.0], np.float32))
    assert shrunk.pictures is annotated.pictures


@pytest.mark.parametrize(("side", "expected"), [(512, 512), (1024, 512), (1536, 384)])
def test_large_pictures_get_labels_of_at_most_512(side: int, expected: int) -> None:
    assert shrink_labels(make_set(side), None).masks.shape[1:] == (expected, expected)


@pytest.mark.parametrize("side", [0, -8, 3, 5, 12, 32])
def test_other_sides_are_refused(side: int) -> None:
    with pytest.raises(AnnotationError, match=rf"label_resolution is {side}, expected 16, the side of the pictures"):
        shrink_labels(make_set(16), side)
