"""Checks of a manifest's values: each field within its range, and no two fields in contradiction."""

from __future__ import annotations

from labelmint.graphs import VOTE_RULES
from labelmint.v1 import bundle_pb2
from labelmint.validation.content import check_files, check_licence, check_provenance, check_runtime, check_tables
from labelmint.validation.measurements import check_parity, check_score_quantiles
from labelmint.validation.model import (
    check_backbone,
    check_class_distribution,
    check_classes,
    check_ensembles,
    check_frame,
    check_identity,
    check_keypoints,
    check_taps,
    check_truncation,
)
from labelmint.validation.rules import one_of

__all__ = ["validate_manifest"]


def validate_manifest(manifest: bundle_pb2.Manifest) -> None:
    """Check every field of a manifest; `digest` and the files' hashes are only checked for their form.

    Raises:
        ManifestError: A field is missing, out of range, or contradicts another; the error names it.
    """
    check_identity(manifest)
    check_backbone(manifest.backbone)
    check_frame(manifest)
    check_taps(manifest.taps)
    one_of("upsampling", manifest.upsampling, {"bilinear"})
    check_classes(manifest)
    check_ensembles(manifest)
    check_keypoints(manifest.keypoints)
    one_of("vote_rule", manifest.vote_rule, VOTE_RULES)
    one_of("uncertainty_rule", manifest.uncertainty_rule, {"js_divergence"})
    one_of("noise_mode", manifest.noise_mode, {"const", "none"})
    one_of("precision", manifest.precision, {"float32", "float16", "bfloat16"})
    check_truncation(manifest)
    check_class_distribution(manifest)
    check_score_quantiles(manifest)
    check_parity(manifest.parity)
    check_runtime(manifest.runtime)
    check_files(manifest)
    check_tables(manifest)
    check_provenance(manifest.provenance)
    check_licence(manifest.licence)
