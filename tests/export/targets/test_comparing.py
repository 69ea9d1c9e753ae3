"""Figures over many samples do not depend on how the samples were cut into batches."""

from __future__ import annotations

import numpy as np
import pytest

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
