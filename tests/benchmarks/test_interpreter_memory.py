"""Peak memory of interpreter training."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.interpreter_memory.__main__ import main
from benchmarks.interpreter_memory.synthetic import fill_synthetic, stylegan1_taps
from labelmint_export.interpreter.features import FeaturePool


@pytest.mark.thorough
def test_a_small_run_measures_a_process_of_its_own(tmp_path: Path) -> None:
    arguments = ["--side", "16", "--pictures", "5", "--classes", "3", "--keypoints", "2", "--steps", "2"]
    status = main([*arguments, "--out", str(tmp_path)])

    assert status == 0
    report = json.loads((tmp_path / "interpreter_memory.json").read_text())
    assert report["num_features"] == 2 * 3 * 512
    assert report["reference_features_bytes"] == 5 * 16 * 16 * 3072 * 4
    peaks = [stage["peak_rss_bytes"] for stage in report["stages"]]
    assert peaks == sorted(peaks)
    assert 2**26 < peaks[-1] <= report["peak_rss_bytes"] < report["target_bytes"]


def test_layout_is_that_of_the_paper() -> None:
    assert sum(tap.channels for tap in stylegan1_taps(512)) == 5056
    assert sum(tap.channels for tap in stylegan1_taps(1024)) == 5088


def test_labels_use_every_class_and_lie_in_the_frame() -> None:
    taps = stylegan1_taps(32)
    annotated = fill_synthetic(FeaturePool(taps, 32, 2), taps, seed=1, num_classes=4, num_keypoints=3)
    assert set(np.unique(annotated.masks)) == {0, 1, 2, 3}
    assert ((annotated.keypoints[..., :2] > 0) & (annotated.keypoints[..., :2] < 32)).all()
    assert not np.array_equal(annotated.masks[0], annotated.masks[1])
