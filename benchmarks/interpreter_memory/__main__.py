"""`python -m benchmarks.interpreter_memory`: peak memory of interpreter training at the size of the paper."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from benchmarks.argument_types import natural_int, positive_int, result_folder
from benchmarks.interpreter_memory.settings import CHANNELS, MIN_SIDE, MemorySettings
from benchmarks.processes.worker import Worker
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.reporting.tables import markdown_table

TARGET_BYTES = 2_000_000_000
"""Training at the default size should stay below."""

_TIMEOUT_S = 24 * 3600.0
_START_TIMEOUT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error. A peak above the target is a result, not an error.
    """
    parsed = _make_parser().parse_args(arguments)
    settings = MemorySettings(
        **{field.name: getattr(parsed, field.name) for field in dataclasses.fields(MemorySettings)}
    )

    def measure() -> Document:
        with Worker("benchmarks.interpreter_memory.training", timeout_s=_START_TIMEOUT_S) as worker:
            request = {**dataclasses.asdict(settings), "threads": parsed.threads}
            return _judge(settings, worker.ask(request, timeout_s=_TIMEOUT_S))

    return run_benchmark("interpreter_memory", arguments, measure, draw_summary, parsed.out)


def _judge(settings: MemorySettings, outcome: Document) -> Document:
    """Put what was measured beside what the reference algorithm needs."""
    reference = settings.num_pictures * settings.side**2 * int(outcome["num_features"]) * 4
    return {
        "configuration": dataclasses.asdict(settings),
        "note": "Steps are alike: more of them take more time and no more memory.",
        **outcome,
        "target_bytes": TARGET_BYTES,
        "reaches_target": outcome["peak_rss_bytes"] < TARGET_BYTES,
        "reference_features_bytes": reference,
        "reference_to_peak": round(reference / outcome["peak_rss_bytes"], 1),
    }


def draw_summary(report: Document) -> str:
    """A table of the stages and a sentence on the reference."""
    rows = [
        [stage["name"], f"{stage['peak_rss_bytes'] / 1e9:.2f}", f"{stage['seconds']:.1f}"] for stage in report["stages"]
    ]
    return (
        markdown_table(["after", "peak so far, GB", "seconds"], rows)
        + f"{report['configuration']['num_pictures']} pictures, {report['num_features']} features a pixel: the float32 "
        f"features that the reference algorithm makes take {report['reference_features_bytes'] / 1e9:.1f} GB, "
        f"{report['reference_to_peak']:.0f} times this peak (target: below {TARGET_BYTES / 1e9:g} GB).\n"
    )


def _make_parser() -> argparse.ArgumentParser:
    defaults = MemorySettings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.interpreter_memory",
        description="Measure the peak memory of interpreter training on synthetic taps in StyleGAN1's layout.",
    )
    parser.add_argument(
        "--side",
        type=int,
        choices=[side for side in CHANNELS if side >= MIN_SIDE],
        default=defaults.side,
        help=f"resolution of the pictures (default {defaults.side})",
    )
    for name, read, help_text in (
        ("num_pictures", positive_int, "annotated pictures"),
        ("num_classes", positive_int, "classes, at least 2"),
        ("num_keypoints", natural_int, "keypoints, 0 for none"),
        ("steps", positive_int, "optimiser steps; all are alike"),
        ("seed", natural_int, "of all numbers"),
    ):
        default = getattr(defaults, name)
        flag = f"--{name.removeprefix('num_')}"
        parser.add_argument(flag, dest=name, type=read, default=default, help=f"{help_text} (default {default})")
    parser.add_argument("--threads", type=natural_int, default=0, help="threads of torch (default: its own choice)")
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
