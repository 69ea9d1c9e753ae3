"""`python -m benchmarks.curves`: throughput by batch size and latency by load of the embedded model, with plots."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.argument_types import positive_float, positive_int, result_folder
from benchmarks.curves.batches import measure_batches
from benchmarks.curves.load import measure_loads
from benchmarks.curves.plots import plot_batches, plot_loads
from benchmarks.reporting.environment import describe_command, describe_environment, load_average
from benchmarks.reporting.files import RESULTS_FOLDER, write_json
from labelmint.bundle import open_bundle
from labelmint.errors import LabelmintError
from labelmint_service.engine.loading import ENGINES
from labelmint_service.settings import EMBEDDED_BUNDLE

SIZES = (1, 2, 4, 8, 16)
LOADS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, draw, write the results.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=EMBEDDED_BUNDLE, help="folder of the bundle")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--sizes", type=positive_int, nargs="+", default=SIZES, help="batch sizes")
    parser.add_argument("--rounds", type=positive_int, default=5, help="runs of each batch size")
    parser.add_argument("--loads", type=positive_float, nargs="+", default=LOADS, help="shares of what it can answer")
    parser.add_argument("--seconds", type=positive_float, default=15.0, help="of each load")
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the results")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw what the result files say again")
    parsed = parser.parse_args(arguments)
    if parsed.draw:
        if not (parsed.out / "curves.json").is_file():
            parser.error(f"there is no {parsed.out / 'curves.json'} to draw; measure first, or give another --out")
        _draw(json.loads((parsed.out / "curves.json").read_text(encoding="utf-8")), parsed.out)
        return 0
    command = describe_command("benchmarks.curves", arguments)
    report: dict[str, Any] = {"benchmark": "curves", **describe_environment(command)}
    try:
        opened = open_bundle(parsed.bundle)
        batches = {
            engine: measure_batches(parsed.bundle, engine, parsed.sizes, parsed.rounds) for engine in parsed.engines
        }
        loads = {
            engine: measure_loads(parsed.bundle, engine, opened.name, parsed.loads, parsed.seconds)
            for engine in parsed.engines
        }
    except LabelmintError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    report |= {"model": opened.name, "digest": opened.digest, "batches": batches, "loads": loads}
    report |= {"load_average_after": load_average()}
    write_json(parsed.out / "curves.json", report)
    _draw(report, parsed.out)
    print(f"written: {parsed.out / 'curves.json'} and the plots beside it")
    return 0


def _draw(report: Mapping[str, Any], out: Path) -> None:  # Any: a document of JSON
    plot_batches(report["batches"], out / "throughput-by-batch.png")
    plot_loads(report["loads"], out / "latency-by-load.png")


if __name__ == "__main__":
    sys.exit(main())
