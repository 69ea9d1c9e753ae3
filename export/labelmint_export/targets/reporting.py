"""Reports of a verification: a table for the terminal, JSON for programs."""

import math
import platform
from collections.abc import Sequence

from labelmint.bundle import Bundle
from labelmint_export.bundle.runtime import versions_of
from labelmint_export.targets.comparing import Check
from labelmint_export.targets.verifying import EngineReport

PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def format_table(reports: Sequence[EngineReport]) -> str:
    """Lay reports out for a terminal: one line a figure, those that miss their tolerance marked."""
    lines = []
    for report in reports:
        lines.append(f"{report.engine}: {report.computes}")
        lines += [_line(check) for check in report.checks]
        lines.append("")
    lines.append("reference: separate members on concatenated features, float64")
    return "\n".join(lines)


def _line(check: Check) -> str:
    if check.tolerance is None:
        return f"  {check.name:32} {check.measured:12.6g}"
    allowed = f"{check.bound} {check.tolerance:g}"
    return f"  {check.name:32} {check.measured:12.6g}   {allowed:12} {'ok' if check.holds else 'MISSED'}"


def to_record(reports: Sequence[EngineReport], bundle: Bundle, num_samples: int) -> dict[str, object]:
    """Turn reports into JSON's types; a figure that is no number becomes null."""
    return {
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "reference": "separate members on concatenated features, float64",
        "num_samples": num_samples,
        "versions": {"python": platform.python_version()} | versions_of(PACKAGES),
        "platform": {"system": platform.system(), "machine": platform.machine()},
        "engines": [
            {
                "engine": report.engine,
                "precision": report.precision,
                "ran": report.ran,
                "holds": report.holds,
                "computes": report.computes,
                "rounds_to_precision": report.rounds,
                "seconds_per_sample": report.seconds_per_sample,
                "checks": [
                    {
                        "name": check.name,
                        "measured": check.measured if math.isfinite(check.measured) else None,
                        "tolerance": check.tolerance,
                        "bound": check.bound,
                        "holds": check.holds,
                    }
                    for check in report.checks
                ],
            }
            for report in reports
        ],
    }
