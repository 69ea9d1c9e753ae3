"""Scores against cases counted by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from labelmint_export.metrics import confusion, figure_size, iou_per_class, keypoint_scores, miou


def mask(*rows: list[int]) -> npt.NDArray[np.uint8]:
    return np.array([rows], np.uint8)


def test_confusion_counts_rows_by_truth_and_leaves_the_ignore_label_out() -> None:
    predicted = mask([0, 1, 1, 2], [0, 0, 2, 2])
    true = mask([0, 0, 1, 255], [0, 1, 2, 255])
    assert confusion(predicted, true, 3).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_iou_and_miou_by_hand() -> None:
    counts = np.array([[2, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert iou_per_class(counts).tolist() == [2 / 4, 1 / 3, 1.0]
    assert miou(counts) == pytest.approx((0.5 + 1 / 3 + 1.0) / 3)


def test_class_that_neither_side_holds_does_not_count() -> None:
    counts = confusion(mask([0, 1]), mask([0, 1]), 4)
    assert np.isnan(iou_per_class(counts)[2:]).all()
    assert miou(counts) == 1.0


def test_class_that_is_only_predicted_counts_as_zero() -> None:
    counts = confusion(mask([0, 2]), mask([0, 0]), 3)
    assert iou_per_class(counts)[2] == 0.0
    assert miou(counts) == pytest.approx((0.5 + 0.0) / 2)


def test_ignored_pixels_do_not_count_whatever_is_predicted_there() -> None:
    true = mask([0, 1, 255, 255])
    for wrong in (0, 1, 2):
        assert miou(confusion(mask([0, 1, wrong, wrong]), true, 3)) == 1.0


def test_figure_size_is_the_longer_side_of_what_is_not_background() -> None:
    masks = np.zeros((3, 10, 12), np.uint8)
    masks[0, 2:5, 3:10] = 1  # 3 x 7
    masks[1, 1, 1] = masks[1, 8, 2] = 4  # 8 x 2
    assert figure_size(masks).tolist() == [7.0, 8.0, 12.0]


def test_pck_by_hand() -> None:
    true = np.array([[[10, 10, 1], [20, 10, 1], [5, 5, 0]], [[10, 10, 1], [20, 10, 0], [5, 5, 0]]], np.float32)
    predicted = np.array([[[13, 14], [20, 12], [99, 99]], [[10, 19.9], [0, 0], [5, 5]]], np.float32)
    visible = np.array([[True, True, False], [False, True, False]])
    # Distances 5 and 2 of a figure of 40 (0.125, 0.05), and 9.9 of one of 100 (0.099).
    scores = keypoint_scores(predicted, visible, true, np.array([40.0, 100.0]))
    assert scores.pck_at_0_1 == pytest.approx(2 / 3)
    assert scores.pck_at_0_05 == pytest.approx(1 / 3)
    assert scores.visibility_accuracy == pytest.approx(4 / 6)
    assert scores.pck_at_0_1_per_keypoint[:2] == (0.5, 1.0)
    assert np.isnan(scores.pck_at_0_1_per_keypoint[2])


def test_pck_without_visible_keypoints_is_zero() -> None:
    scores = keypoint_scores(
        np.zeros((1, 2, 2), np.float32), np.zeros((1, 2), bool), np.zeros((1, 2, 3), np.float32), np.array([8.0])
    )
    assert scores.pck_at_0_1 == 0.0
    assert scores.visibility_accuracy == 1.0
