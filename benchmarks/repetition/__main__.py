"""`python -m benchmarks.repetition`: do a generator's outputs have the same bits every time, under which options?"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.argument_types import result_folder
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.reporting.tables import markdown_table
from labelmint.bundle import Bundle, open_bundle
from labelmint_service.engine.graph_runs import run_graph
from labelmint_service.engine.loading import ALGORITHMS
from labelmint_service.engine.sessions import PROVIDERS, Provider, find_provider, open_session
from labelmint_service.settings import EMBEDDED_BUNDLE

Outputs = Mapping[str, npt.NDArray[Any]]  # Any: of the output's dtype
Paint = Callable[[npt.NDArray[np.float32]], Outputs]

OPTIONS: Mapping[str, Mapping[str, tuple[str, Mapping[str, str]]]] = MappingProxyType(
    {
        "cpu": {"as served": ("repeatable", {})},
        "cuda": {
            **{name: (name, {}) for name in ALGORITHMS},
            "timed": ("fast", {"cudnn_conv_algo_search": "EXHAUSTIVE"}),
            "fast, small workspace": ("fast", {"cudnn_conv_use_max_workspace": "0"}),
            "fast, channels last": ("fast", {"prefer_nhwc": "1"}),
        },
    }
)
"""Provider -> name -> the service's algorithms, and options in place of or beside those that they set."""
_RUNS = 5
_SEED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error. Outputs that differ are a result, not an error.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repetition", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=EMBEDDED_BUNDLE, help="folder of the bundle")
    parser.add_argument("--provider", choices=PROVIDERS, default="cuda", help="what runs it (default %(default)s)")
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the result")
    parsed = parser.parse_args(arguments)

    def measure() -> Document:
        bundle, entries = open_bundle(parsed.bundle), {}
        for name, (algorithms, options) in OPTIONS[parsed.provider].items():
            served = find_provider(parsed.provider, algorithms=algorithms)
            provider = replace(served, options={**served.options, **options})
            entries[name] = measure_repetition(_open(bundle, provider), make_styles(bundle))
        return {"model": bundle.name, "digest": bundle.digest, "provider": parsed.provider, "options": entries}

    return run_benchmark("repetition", arguments, measure, draw_summary, parsed.out)


def _open(bundle: Bundle, provider: Provider) -> Paint:
    manifest = bundle.manifest
    session = open_session(bundle, manifest.graphs.synthesis, manifest.runtime.onnxruntime, provider)
    names = [output.name for output in session.get_outputs()]
    return lambda ws: run_graph(session, names, {"ws": ws})


def make_styles(bundle: Bundle) -> npt.NDArray[np.float32]:
    """As many different rows as a run has: float32 [B, L, w_dim]."""
    backbone = bundle.manifest.backbone
    shape = (bundle.manifest.runtime.batch_size, backbone.num_ws, backbone.w_dim)
    return np.random.default_rng(_SEED).standard_normal(shape).astype(np.float32)


def measure_repetition(paint: Paint, ws: npt.NDArray[np.float32]) -> Document:
    """Paint the same rows again, in reverse order, and the first one beside others.

    Args:
        paint: Runs the graph on float32 [B, L, w_dim].
        ws: What it runs on.

    Returns:
        `ms` of a run, outputs copied to the host, and for each output how many values differ from those of the first
        run `again`, `reversed` and `beside` others, and the `largest` of these differences.
    """
    first = paint(ws)
    alone = ws.copy()
    alone[1:] = 0.0
    again, turned, beside = paint(ws), paint(np.ascontiguousarray(ws[::-1])), paint(alone)
    seconds = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        paint(ws)
        seconds.append(time.perf_counter() - began)
    outputs = {}
    for name, expected in first.items():
        cases = {
            "again": (again[name], expected),
            "reversed": (turned[name][::-1], expected),
            "beside": (beside[name][:1], expected[:1]),
        }
        counts = {case: int((got != wanted).sum()) for case, (got, wanted) in cases.items()}
        largest = max(float(np.abs(got.astype(float) - wanted.astype(float)).max()) for got, wanted in cases.values())
        outputs[name] = {**counts, "largest": largest}
    return {"ms": round(statistics.median(seconds) * 1e3, 2), "outputs": outputs}


def draw_summary(report: Document) -> str:
    """A row for each set of options and output."""
    cases = ("again", "reversed", "beside")
    rows = [
        [options, f"{entry['ms']:.1f}", name, *(f"{seen[case]:,}" for case in cases), f"{seen['largest']:.1e}"]
        for options, entry in report["options"].items()
        for name, seen in entry["outputs"].items()
    ]
    header = ["options", "ms a run", "output", "values other again", "reversed", "beside others", "largest difference"]
    return markdown_table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
