"""The sixteen annotated pictures are all that the shipped interpreter knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelmint.bundle import Bundle
from labelmint_export.cli import main
from labelmint_export.generator.snapshots import load_generator
from labelmint_export.interpreter.report import label_addresses
from labelmint_export.interpreter.storage import load_interpreter
from labelmint_export.metrics import confusion, miou
from tests.embedded.graph import run_model_graph

SEED = 77
COUNT = 24


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_interpreter_trained_anew_from_the_annotations_is_the_shipped_one(
    embedded: Bundle, sources: Path, annotated: Path, tmp_path: Path
) -> None:
    """Trainings on other processors round differently, so labels are compared and not weights."""
    taps = [tap.name for tap in embedded.manifest.taps]
    arguments = ["--generator", sources / "generator.safetensors", "--annotations", annotated]
    out = tmp_path / "interpreter.safetensors"
    assert main(["train-interpreter", *map(str, arguments), "--taps", *taps, "--out", str(out)]) == 0

    psi = embedded.manifest.truncation.default_psi
    shipped = run_model_graph(embedded, SEED, range(COUNT))
    generator = load_generator(sources / "generator.safetensors")
    pictures, labels = label_addresses(generator, load_interpreter(out), SEED, COUNT, psi)

    difference = np.abs(pictures.astype(np.int16) - shipped["image"])
    assert difference.max() <= 1
    num_classes = len(embedded.manifest.classes)
    agreement = confusion(labels.mask, shipped["label"], num_classes)
    assert np.trace(agreement) / agreement.sum() > 0.995
    assert miou(agreement) > 0.97
    distance = np.linalg.norm(labels.keypoints[..., :2] - shipped["keypoints"][..., :2], axis=-1)
    seen = shipped["keypoints"][..., 3] > 0.5
    assert np.median(distance[seen]) < 0.25
