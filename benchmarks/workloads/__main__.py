"""`python -m benchmarks.workloads`: how long a labelled picture takes the reference algorithm and the engines."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.argument_types import positive_int, result_folder
from benchmarks.errors import RecordError
from benchmarks.reporting.environment import describe_command, describe_environment, load_average
from benchmarks.reporting.files import RESULTS_FOLDER, Document, write_json, write_text
from benchmarks.workloads.devices import DEVICES
from benchmarks.workloads.measuring import CONTENDERS, USUAL, WorkloadSettings, measure
from benchmarks.workloads.plots import plot_stages
from benchmarks.workloads.shapes import WORKLOADS
from benchmarks.workloads.summary import draw_page, draw_table, summarize
from labelmint.errors import LabelmintError
from labelmint_export.bundle.settings import BUNDLE_PRECISIONS
from labelmint_service.engine.loading import ALGORITHMS


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the results.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error; workloads that were measured before it are written.
    """
    parser = _make_parser()
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"workload is {unknown[0]!r}, expected some of {', '.join(WORKLOADS)}")
    on_gpu = parsed.device == "cuda"
    settings = WorkloadSettings(
        contenders=tuple(dict.fromkeys(parsed.contenders or USUAL[parsed.device])),
        device=parsed.device,
        rounds=parsed.rounds,
        pictures=parsed.pictures or (256 if on_gpu else 4),
        torch_pictures=4 if on_gpu else 1,
        batch_size=parsed.batch_size or (8 if on_gpu else 1),
        precision=parsed.precision or ("float16" if on_gpu else "float32"),
        cache=parsed.cache,
        algorithms=parsed.algorithms,
    )
    name = "workloads-cuda" if on_gpu else "workloads"
    document: Document = {}
    try:
        measured = _read_measured(parsed.out / f"{name}.json")
        for workload in dict.fromkeys(parsed.workloads or WORKLOADS):
            environment = describe_environment(describe_command("benchmarks.workloads", arguments))
            summary = summarize(workload, measure(workload, settings), settings)
            measured[workload] = {**summary, **environment, "load_average_after": load_average()}
            document = {"workloads": {one: measured[one] for one in WORKLOADS if one in measured}}
            _write(document, parsed.out, name)  # now, because the next workload may fail
    except LabelmintError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(draw_table(document), end="")
    return 0


def _write(document: Document, out: Path, name: str) -> None:
    write_json(out / f"{name}.json", document)
    write_text(out / f"{name}.md", draw_page(document))
    if name == "workloads":
        plot_stages(document["workloads"], out / "time-by-stage.png")


def _read_measured(path: Path) -> dict[str, Document]:
    """Workloads of earlier runs, which stay until they are measured again.

    Raises:
        RecordError: The file is none of this benchmark.
    """
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["workloads"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path} holds no measured workloads ({error!r}); delete it or give another --out", field="out"
        ) from error


def _make_parser() -> argparse.ArgumentParser:
    defaults = WorkloadSettings(cache=Path("out/benchmarks"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workloads",
        description="Measure how long a labelled picture takes the reference algorithm and the engines.",
    )
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"some of {', '.join(WORKLOADS)} (default all)"
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="cuda needs a CUDA build of torch")
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, help="(default: those that are usual on the device)"
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=defaults.rounds, help="turns of each (default %(default)s)"
    )
    parser.add_argument("--pictures", type=positive_int, help="of an engine's turn, at least (default 4, on cuda 256)")
    parser.add_argument(
        "--algorithms", choices=ALGORITHMS, default=defaults.algorithms, help="of cuDNN (default %(default)s)"
    )
    parser.add_argument("--batch-size", type=positive_int, help="of the bundles it makes (default 1, on cuda 8)")
    parser.add_argument(
        "--precision",
        choices=BUNDLE_PRECISIONS,
        help="of the generator in the bundles it makes (default float32, on cuda float16)",
    )
    parser.add_argument(
        "--cache", type=result_folder, default=defaults.cache, help="folder for the bundles (default %(default)s)"
    )
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
