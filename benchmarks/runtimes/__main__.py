"""`python -m benchmarks.runtimes`: a bundle's generator in onnxruntime and in OpenVINO (`pip install openvino`)."""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.argument_types import positive_int, result_folder
from benchmarks.errors import ParityError
from benchmarks.processes.worker import Worker
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.reporting.tables import markdown_table
from benchmarks.runtimes.painting import RUNTIMES
from labelmint.bundle import open_bundle
from labelmint_service.settings import EMBEDDED_BUNDLE

LARGEST_ERROR = 1e-3
"""Of an output, as a share of its largest value: both compute in float32, in another order. A picture, which is rounded
to whole levels, may differ by one."""

_TIMEOUT_S = 1200.0
_SEED = 11


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes", description=__doc__)
    parser.add_argument("--bundles", type=Path, nargs="+", default=[EMBEDDED_BUNDLE], help="folders of bundles")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES, help="the first is the measure")
    parser.add_argument("--batch-sizes", type=positive_int, nargs="+", default=[1, 4], help="rows of a run")
    parser.add_argument("--rounds", type=positive_int, default=5, help="turns of each runtime")
    parser.add_argument("--runs", type=positive_int, default=4, help="runs of a turn")
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the result")
    parsed = parser.parse_args(arguments)

    def measure() -> Document:
        entries = [_compare(bundle, size, parsed) for bundle in parsed.bundles for size in parsed.batch_sizes]
        return {"configuration": {"rounds": parsed.rounds, "runs": parsed.runs}, "entries": entries}

    return run_benchmark("runtimes", arguments, measure, draw_summary, parsed.out)


def _compare(bundle: Path, batch_size: int, parsed: argparse.Namespace) -> Document:
    opened = open_bundle(bundle)
    seen: dict[str, list[float]] = {runtime: [] for runtime in parsed.runtimes}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {
            runtime: stack.enter_context(
                Worker(
                    "benchmarks.runtimes.painting",
                    ["--bundle", str(bundle.resolve()), "--runtime", runtime],
                    timeout_s=_TIMEOUT_S,
                )
            )
            for runtime in parsed.runtimes
        }
        files = {runtime: Path(folder, f"{runtime}.npz") for runtime in parsed.runtimes}
        for turn in range(parsed.rounds):
            first = turn % len(parsed.runtimes)
            for runtime in (*parsed.runtimes[first:], *parsed.runtimes[:first]):
                request = {"batch_size": batch_size, "seed": _SEED, "runs": parsed.runs, "outputs": str(files[runtime])}
                answer = workers[runtime].ask(request, timeout_s=_TIMEOUT_S)
                seen[runtime].append(statistics.median(answer["ns"]) / 1e6 / batch_size)
        errors = compare_outputs({runtime: _load(path) for runtime, path in files.items()})
    measure = parsed.runtimes[0]
    return {
        "model": opened.name,
        "digest": opened.digest,
        "batch_size": batch_size,
        "ms_a_picture": {runtime: round(statistics.median(turns), 2) for runtime, turns in seen.items()},
        "times_the_first": {
            runtime: round(statistics.median(a / b for a, b in zip(turns, seen[measure], strict=True)), 3)
            for runtime, turns in seen.items()
        },
        "largest_error": errors,
    }


def _load(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def compare_outputs(outputs: Mapping[str, Mapping[str, npt.NDArray[Any]]]) -> dict[str, float]:
    """Hold the outputs of each runtime against the first one's.

    Returns:
        Runtime -> the largest difference of an output in float32, as a share of its largest value.

    Raises:
        ParityError: It exceeds `LARGEST_ERROR`, a level of a picture differs by more than one, or an output is missing.
    """
    first, *others = outputs
    errors = {}
    for runtime in others:
        worst = 0.0
        for name, expected in outputs[first].items():
            if name not in outputs[runtime]:
                raise ParityError(f"{runtime} gives no {name!r}, which {first} gives")
            got = outputs[runtime][name].astype(np.float64)
            if got.shape != expected.shape:
                raise ParityError(f"{name!r} of {runtime} has shape {list(got.shape)}, expected {list(expected.shape)}")
            difference = float(np.abs(got - expected).max())
            if np.issubdtype(expected.dtype, np.integer):
                share = 0.0 if difference <= 1 else difference / 255
            else:
                share = difference / float(np.abs(expected.astype(np.float64)).max())
            if not share <= LARGEST_ERROR:
                raise ParityError(f"{name!r} of {runtime} differs from {first}'s by {share:.1e} of its range")
            worst = max(worst, share)
        errors[runtime] = worst
    return errors


def draw_summary(report: Document) -> str:
    """A row a bundle, batch size and runtime."""
    rows = [
        [entry["model"], str(entry["batch_size"]), runtime, f"{ms:.1f}", f"{entry['times_the_first'][runtime]:.2f}"]
        for entry in report["entries"]
        for runtime, ms in entry["ms_a_picture"].items()
    ]
    return markdown_table(["bundle", "rows", "runtime", "ms a picture", "times the first"], rows)


if __name__ == "__main__":
    sys.exit(main())
