"""Where the time went: the stages of all batches since the server started, as a table for a terminal."""

from __future__ import annotations

from labelmint_service.metrics import ServiceMetrics

_STAGES = ("latents", "queue", "compute", "mapping", "synthesis", "interpreter", "keypoints", "copy", "encode", "send")
"""In the order in which a batch goes through them; those between compute and encode are parts of compute."""


def draw_profile(metrics: ServiceMetrics) -> str:
    """Draw the table.

    Returns:
        Lines; a head alone if nothing ran.
    """
    seen: dict[tuple[str, str], dict[str, float]] = {}
    for family in metrics.stage_seconds.collect():
        for sample in family.samples:
            kind = sample.name.rpartition("_")[2]
            if kind in {"sum", "count"}:
                seen.setdefault((sample.labels["model"], sample.labels["stage"]), {})[kind] = sample.value
    lines = [f"{'model':<16} {'stage':<12} {'times':>9} {'total s':>10} {'mean ms':>10}"]
    for (model, stage), entry in sorted(seen.items(), key=lambda item: (item[0][0], _place(item[0][1]))):
        count, total = entry["count"], entry["sum"]
        lines.append(f"{model:<16} {stage:<12} {count:>9.0f} {total:>10.3f} {1e3 * total / max(count, 1):>10.3f}")
    return "\n".join(lines)


def _place(stage: str) -> int:
    return _STAGES.index(stage) if stage in _STAGES else len(_STAGES)
