"""Figures over many samples: batches do not matter, and every kind of error misses a tolerance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from labelmint_export.precision import PRECISIONS, TOLERANCES, Precision
from labelmint_export.targets.comparing import Comparison
from tests.export.built_bundle import Arrays

COUNT = 8


def make_outputs(seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    keypoints = random.uniform(0, 1, (COUNT, 2, 4)).astype(np.float32)
    return {
        "image": random.integers(0, 256, (COUNT, 6, 5, 3)).astype(np.uint8),
        "label": random.integers(0, 3, (COUNT, 6, 5)).astype(np.uint8),
        "uncertainty_map": random.uniform(0, 1, (COUNT, 6, 5)).astype(np.float32),
        "keypoints": keypoints,
        "finite": np.arange(COUNT) < COUNT - 1,
    }


def measure(batch: int) -> dict[str, float]:
    expected, got = make_outputs(1), make_outputs(2)
    comparison = Comparison()
    for start in range(0, COUNT, batch):
        part = slice(start, start + batch)
        comparison.add({n: a[part] for n, a in expected.items()}, {n: a[part] for n, a in got.items()})
    assert comparison.num_samples == COUNT
    return {check.name: check.measured for check in comparison.checks({})}


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_short_last_batch_counts_by_its_samples(batch: int) -> None:
    """Eight samples in threes: the last two count a quarter, not a third."""
    whole, parts = measure(COUNT), measure(batch)
    assert whole["finite"] == 7 / 8
    assert parts == pytest.approx(whole, rel=1e-12)


# What is wrong with an output -> the figures that must tell, in every precision.
DAMAGES: dict[str, tuple[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]], str]] = {
    "brighter": ("image", lambda image: np.where(image > 127, image - 3, image + 3), "image_mean_error_levels"),
    "other labels": ("label", lambda label: (label + 1) % 3, "label_agreement"),
    "less sure": ("uncertainty_map", lambda uncertainty: uncertainty + 0.02, "uncertainty_mean_error"),
    "shifted points": ("keypoints", lambda points: points + np.array([0.7, 0, 0, 0]), "keypoints_within"),
    "hidden points": ("keypoints", lambda points: points * np.array([1, 1, 1, 0]), "keypoint_visibility_agreement"),
    "not finite": ("finite", np.zeros_like, "finite"),
    "no numbers": ("uncertainty_map", lambda uncertainty: uncertainty * np.nan, "uncertainty_mean_error"),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_error_misses_its_tolerance(precision: Precision, damage: str) -> None:
    outputs = make_outputs(1) | {"finite": np.ones(COUNT, bool)}
    whole, damaged = Comparison(), Comparison()
    whole.add(outputs, outputs)
    assert all(check.holds for check in whole.checks(TOLERANCES[precision]))
    name, change, told = DAMAGES[damage]
    damaged.add(outputs, outputs | {name: change(outputs[name])})
    missed = [check.name for check in damaged.checks(TOLERANCES[precision]) if not check.holds]
    assert missed
    assert any(check.startswith(told) for check in missed)
    assert all(check.split("_")[0].removesuffix("s") == told.split("_")[0].removesuffix("s") for check in missed)
