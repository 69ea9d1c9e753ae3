"""`python -m benchmarks.checkpoint_import`: what reading and exporting a large StyleGAN2 takes."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.argument_types import natural_int, result_folder
from benchmarks.checkpoint_import.files import save_checkpoint
from benchmarks.processes.worker import Worker
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.reporting.tables import markdown_table
from benchmarks.workloads.shapes import STYLEGAN2_CHANNELS

TARGETS = {"read": (20.0, 1_500_000_000), "export": (120.0, 6_000_000_000)}
"""Seconds and bytes that the stages should stay below at 1,024 x 1,024."""

_START_TIMEOUT_S = 600.0
_TIMEOUT_S = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error. A stage above its target is a result, not an error.
    """
    parsed = _make_parser().parse_args(arguments)

    def measure() -> Document:
        stages: Document = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "stylegan2.pt")
            save_checkpoint({r: width for r, width in STYLEGAN2_CHANNELS.items() if r <= parsed.resolution}, path)
            for stage in TARGETS:
                with Worker("benchmarks.checkpoint_import.measuring", timeout_s=_START_TIMEOUT_S) as worker:
                    request = {"stage": stage, "path": str(path), "threads": parsed.threads}
                    stages[stage] = worker.ask(request, timeout_s=_TIMEOUT_S)
        return {"resolution": parsed.resolution, "stages": judge_stages(stages)}

    return run_benchmark("checkpoint_import", arguments, measure, draw_summary, parsed.out)


def judge_stages(stages: Document) -> Document:
    """Put what each stage took beside its targets, ready for JSON."""
    judged: Document = {}
    for stage, outcome in stages.items():
        seconds, num_bytes = TARGETS[stage]
        judged[stage] = {
            **outcome,
            "target_seconds": seconds,
            "target_bytes": num_bytes,
            "reaches_target": outcome["seconds"] < seconds and outcome["peak_rss_bytes"] < num_bytes,
        }
    return judged


def draw_summary(report: Document) -> str:
    """A row a stage."""
    rows = [
        [
            stage,
            f"{one['seconds']:.1f}",
            f"{one['target_seconds']:g}",
            f"{one['peak_rss_bytes'] / 1e9:.2f}",
            f"{one['target_bytes'] / 1e9:g}",
        ]
        for stage, one in report["stages"].items()
    ]
    return markdown_table(["stage", "seconds", "aim", "peak GB", "aim"], rows)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.checkpoint_import",
        description="Measure time and peak memory of reading a StyleGAN2 checkpoint and exporting it to ONNX, each in "
        "a process of its own.",
    )
    sides = [side for side in STYLEGAN2_CHANNELS if side > 4]
    parser.add_argument("--resolution", type=int, choices=sides, default=1024, help="pixels (default %(default)s)")
    parser.add_argument("--threads", type=natural_int, default=0, help="threads of torch (default: its own choice)")
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
