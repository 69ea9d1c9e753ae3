"""`python -m benchmarks.workloads`: how long a labelled picture takes the reference algorithm and the engines."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.argument_types import positive_int
from benchmarks.reporting.environment import describe_command, describe_environment
from benchmarks.reporting.files import RESULTS_FOLDER, write_json, write_text
from benchmarks.workloads.devices import DEVICES
from benchmarks.workloads.measuring import CONTENDERS, USUAL, WorkloadSettings, measure
from benchmarks.workloads.plots import plot_stages
from benchmarks.workloads.shapes import WORKLOADS
from benchmarks.workloads.summary import draw_page, draw_table, summarize
from labelmint.errors import LabelmintError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the results.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workloads", description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"some of {', '.join(WORKLOADS)} (default all)"
    )
    defaults = WorkloadSettings(cache=Path("out/benchmarks"))
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="cuda needs a CUDA build of torch")
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, help="(default: those that are usual on the device)"
    )
    parser.add_argument("--rounds", type=positive_int, default=defaults.rounds)
    parser.add_argument("--pictures", type=positive_int, help="of a turn of an engine (default 4, on cuda 256)")
    parser.add_argument("--batch-size", type=positive_int, help="rows of an engine's run (default 1, on cuda 8)")
    parser.add_argument(
        "--cache", type=Path, default=defaults.cache, help="folder for the bundles (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS_FOLDER, help="folder for the results")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"workload is {unknown[0]!r}, expected some of {', '.join(WORKLOADS)}")
    on_gpu = parsed.device == "cuda"
    settings = WorkloadSettings(
        contenders=tuple(parsed.contenders or USUAL[parsed.device]),
        device=parsed.device,
        rounds=parsed.rounds,
        pictures=parsed.pictures or (256 if on_gpu else defaults.pictures),
        torch_pictures=4 if on_gpu else defaults.torch_pictures,
        batch_size=parsed.batch_size or (8 if on_gpu else defaults.batch_size),
        cache=parsed.cache,
    )
    name = "workloads-cuda" if on_gpu else "workloads"
    measured = _read_measured(parsed.out / f"{name}.json")
    try:
        for workload in parsed.workloads or WORKLOADS:
            environment = describe_environment(describe_command("benchmarks.workloads", arguments))
            measured[workload] = {**summarize(workload, measure(workload, settings), settings), **environment}
    except LabelmintError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    document = {"workloads": {workload: measured[workload] for workload in WORKLOADS if workload in measured}}
    write_json(parsed.out / f"{name}.json", document)
    write_text(parsed.out / f"{name}.md", draw_page(document))
    if not on_gpu:
        plot_stages(document["workloads"], parsed.out / "time-by-stage.png")
    print(draw_table(document), end="")
    return 0


def _read_measured(path: Path) -> dict[str, dict[str, Any]]:  # Any: a document of JSON
    """Workloads of earlier runs, which stay until they are measured again."""
    if not path.exists():
        return {}
    measured: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["workloads"]
    return measured


if __name__ == "__main__":
    sys.exit(main())
