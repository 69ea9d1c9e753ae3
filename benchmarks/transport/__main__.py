"""`python -m benchmarks.transport`: how fast recorded samples travel, beside Arrow Flight and Triton."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.argument_types import positive_int, result_folder
from benchmarks.reporting.environment import describe_command, describe_environment, load_average
from benchmarks.reporting.files import RESULTS_FOLDER, write_json, write_text
from benchmarks.transport.measuring import TransportSettings, measure
from benchmarks.transport.summary import draw_page, draw_table, summarize
from labelmint.bundle import open_bundle
from labelmint.errors import LabelmintError
from labelmint_service.settings import EMBEDDED_BUNDLE


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the results.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error. A ratio below its goal is a result, not an error.
    """
    defaults = TransportSettings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transport", description=__doc__)
    parser.add_argument("--sizes", type=positive_int, nargs="+", default=defaults.sizes, help="multiples of 128")
    parser.add_argument("--rounds", type=positive_int, default=defaults.rounds, help="turns of each stream")
    parser.add_argument("--megabytes", type=positive_int, default=512, help="of a turn")
    parser.add_argument("--batch-megabytes", type=positive_int, default=16, help="of a batch, which is one message")
    parser.add_argument(
        "--triton-python", help="Python of an environment with nvidia-pytriton; without it, Triton is left out"
    )
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the results")
    parsed = parser.parse_args(arguments)
    for size in parsed.sizes:
        if size % 128:
            parser.error(f"size is {size}, expected a multiple of 128")
    settings = TransportSettings(
        sizes=parsed.sizes,
        rounds=parsed.rounds,
        stream_bytes=parsed.megabytes * 2**20,
        batch_bytes=parsed.batch_megabytes * 2**20,
        triton_python=parsed.triton_python,
    )
    command = describe_command("benchmarks.transport", arguments)
    if settings.triton_python:
        command = command.replace(settings.triton_python, "PYTHON")  # where it lies says nothing to others
    report: dict[str, object] = {"benchmark": "transport", **describe_environment(command)}
    try:
        report["digest"] = open_bundle(EMBEDDED_BUNDLE).digest
        report["sizes"] = {str(size): summarize(measure(size, settings)) for size in settings.sizes}
    except LabelmintError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    report["load_average_after"] = load_average()
    write_json(parsed.out / "transport.json", report)
    write_text(parsed.out / "transport.md", draw_page(report))
    print(draw_table(report), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
