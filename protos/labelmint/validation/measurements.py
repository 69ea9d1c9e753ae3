"""Checks of what was measured when the bundle was built."""

from __future__ import annotations

from labelmint.v1 import bundle_pb2
from labelmint.validation.rules import field_error, finite_within, one_of, unique, unique_names, within


def check_score_quantiles(manifest: bundle_pb2.Manifest) -> None:
    """Calibrated scores: ascending, one table a psi and class."""
    c_dim = manifest.backbone.c_dim
    within("score_quantiles (their number)", len(manifest.score_quantiles), 0, 65536)
    unique(
        "score_quantiles (truncation_psi, class_index)",
        [(entry.truncation_psi, entry.class_index) for entry in manifest.score_quantiles],
    )
    for position, entry in enumerate(manifest.score_quantiles):
        field = f"score_quantiles[{position}]"
        finite_within(f"{field}.truncation_psi", entry.truncation_psi, 0.0, manifest.truncation.max_psi)
        if entry.HasField("class_index") != bool(c_dim):
            raise field_error(
                f"{field}.class_index", entry.class_index, "it to be set if and only if the model has classes"
            )
        within(f"{field}.class_index", entry.class_index, 0, max(c_dim, 1) - 1)
        within(f"{field}.scores (their number)", len(entry.scores), 2, 100_000)
        previous = 0.0
        for rank, score in enumerate(entry.scores):
            finite_within(f"{field}.scores[{rank}]", score, previous, 1e6)
            previous = score
        within(f"{field}.num_samples", entry.num_samples, 1, 2**63)


def check_parity(parity: bundle_pb2.Parity) -> None:
    """What was measured lies within its tolerance."""
    within("parity.checks (their number)", len(parity.checks), 0, 1024)
    unique_names("parity.checks", [check.name for check in parity.checks])
    if parity.checks:
        within("parity.num_samples", parity.num_samples, 1, 2**63)
    for position, check in enumerate(parity.checks):
        field = f"parity.checks[{position}]"
        finite_within(f"{field}.measured", check.measured, -1e300, 1e300)
        finite_within(f"{field}.tolerance", check.tolerance, -1e300, 1e300)
        one_of(f"{field}.bound", check.bound, {"max", "min"})
        is_met = check.measured <= check.tolerance if check.bound == "max" else check.measured >= check.tolerance
        if not is_met:
            limit = "at most" if check.bound == "max" else "at least"
            raise field_error(f"{field}.measured", check.measured, f"{limit} {check.tolerance} for {check.name}")
