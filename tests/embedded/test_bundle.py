"""What the embedded bundle says about itself."""

from __future__ import annotations

import json
from pathlib import Path

from labelmint.bundle import Bundle
from labelmint_export.datasets.toonhead import CLASS_NAMES, KEYPOINT_NAMES, PALETTE
from labelmint_export.stored import sha256_of_files


def test_classes_and_keypoints_are_those_of_the_set(embedded: Bundle) -> None:
    manifest = embedded.manifest
    assert [item.name for item in manifest.classes] == list(CLASS_NAMES)
    assert [(item.red, item.green, item.blue) for item in manifest.classes] == list(PALETTE)
    assert list(manifest.keypoints.names) == list(KEYPOINT_NAMES)
    assert (manifest.frame.image_height, manifest.frame.image_width) == (128, 128)


def test_bundle_names_the_maker_of_the_drawings(embedded: Bundle) -> None:
    licence = embedded.manifest.licence
    assert licence.data == "CC-BY-4.0"
    assert "Johan Melin" in licence.attribution


def test_score_quantiles_come_from_enough_samples(embedded: Bundle) -> None:
    assert embedded.manifest.score_quantiles
    for table in embedded.manifest.score_quantiles:
        assert table.num_samples >= 2000
        assert list(table.scores) == sorted(table.scores)


def test_parity_was_measured_and_holds(embedded: Bundle) -> None:
    checks = embedded.manifest.parity.checks
    assert {check.name.split(".")[0] for check in checks} == {"onnx_vs_reference", "fused_vs_separate"}
    for check in checks:
        holds = check.measured <= check.tolerance if check.bound == "max" else check.measured >= check.tolerance
        assert holds, check.name


def test_bundle_was_built_from_the_committed_sources(embedded: Bundle, sources: Path, annotated: Path) -> None:
    provenance = embedded.manifest.provenance
    assert provenance.checkpoint_sha256 == sha256_of_files([sources / "generator.safetensors"])
    files = sorted(annotated.iterdir())
    assert provenance.annotations_sha256 == sha256_of_files(files)
    assert provenance.num_annotated_images == 16
    assert len([path for path in files if path.name.endswith(".mask.png")]) == 16


def test_reports_stand_beside_the_sources(sources: Path) -> None:
    for name in ("oracle", "interpreter", "frechet"):
        assert json.loads((sources / "reports" / f"{name}.json").read_text(encoding="utf-8"))
