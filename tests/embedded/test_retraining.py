"""The sixteen annotated pictures are all that the shipped interpreter knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from labelmint.bundle import Bundle
from labelmint_export.annotations import read_annotations, write_annotations
from labelmint_export.cli import main
from labelmint_export.generator.snapshots import load_generator
from labelmint_export.interpreter.report import label_addresses
from labelmint_export.interpreter.storage import load_interpreter
from labelmint_export.metrics import confusion, miou
from tests.embedded.graph import run_model_graph

SEED = 77
COUNT = 24
MIN_AGREEMENT = 0.995
MIN_MIOU = 0.97


class Likeness(NamedTuple):
    """How alike the labels of an interpreter that was trained anew and of the shipped one are, on unseen pictures."""

    agreement: float
    miou: float
    median_distance: float
    """Of keypoints that the shipped one sees, pixels; NaN where the other one has none."""


def train_anew(embedded: Bundle, sources: Path, annotations: Path, folder: Path) -> Likeness:
    """Trainings on other processors round differently, so labels are compared and not weights."""
    taps = [tap.name for tap in embedded.manifest.taps]
    arguments = ["--generator", sources / "generator.safetensors", "--annotations", annotations]
    out = folder / "interpreter.safetensors"
    assert main(["train-interpreter", *map(str, arguments), "--taps", *taps, "--out", str(out)]) == 0

    psi = embedded.manifest.truncation.default_psi
    shipped = run_model_graph(embedded, SEED, range(COUNT))
    generator = load_generator(sources / "generator.safetensors")
    pictures, labels = label_addresses(generator, load_interpreter(out), SEED, COUNT, psi)

    difference = np.abs(pictures.astype(np.int16) - shipped["image"])
    assert difference.max() <= 1
    counts = confusion(labels.mask, shipped["label"], len(embedded.manifest.classes))
    median_distance = np.nan
    if labels.keypoints.shape[1]:
        distance = np.linalg.norm(labels.keypoints[..., :2] - shipped["keypoints"][..., :2], axis=-1)
        median_distance = float(np.median(distance[shipped["keypoints"][..., 3] > 0.5]))
    return Likeness(float(np.trace(counts) / counts.sum()), miou(counts), median_distance)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_interpreter_trained_anew_from_the_annotations_is_the_shipped_one(
    embedded: Bundle, sources: Path, annotated: Path, tmp_path: Path
) -> None:
    likeness = train_anew(embedded, sources, annotated, tmp_path)
    assert likeness.agreement > MIN_AGREEMENT
    assert likeness.miou > MIN_MIOU
    assert likeness.median_distance < 0.25


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_one_other_annotation_of_sixteen_gives_another_interpreter(
    embedded: Bundle, sources: Path, annotated: Path, tmp_path: Path
) -> None:
    """Or the comparison above would say nothing. Keypoints, which take as long again, are left out."""
    whole = read_annotations(annotated)
    masks = whole.masks.copy()
    masks[0] = masks[0, :, ::-1]
    schema = replace(whole.schema, keypoint_names=(), skeleton=(), left_right_pairs=())
    altered = replace(whole, masks=masks, schema=schema, keypoints=whole.keypoints[:, :0])
    write_annotations(altered, tmp_path / "altered")
    likeness = train_anew(embedded, sources, tmp_path / "altered", tmp_path)
    assert likeness.agreement < MIN_AGREEMENT
    assert likeness.miou < MIN_MIOU
