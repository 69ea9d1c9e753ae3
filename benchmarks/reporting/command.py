"""What a benchmark's command does around its measurement: describe the machine, write the result, print it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.reporting.environment import describe_command, describe_environment, load_average
from benchmarks.reporting.files import Document, write_json
from labelmint.errors import LabelmintError


def run_benchmark(
    name: str,
    arguments: Sequence[str] | None,
    measure: Callable[[], Document],
    draw: Callable[[Document], str],
    out: Path,
) -> int:
    """Measure, write `NAME.json`, print.

    Args:
        name: Of the benchmark, which is that of its module too.
        arguments: Of its command line, without the program's name; None takes those of the process.
        measure: Gives what was measured, ready for JSON.
        draw: Makes of the whole document what a person reads.
        out: Folder for the result.

    Returns:
        Exit status: 0, or 1 after a printed error; nothing is written then.
    """
    command = describe_command(f"benchmarks.{name}", arguments)
    environment = describe_environment(command)  # as it was before the load of the measurement
    try:
        measured = measure()
    except LabelmintError as error:
        print(f"benchmarks.{name}: {error}", file=sys.stderr)
        return 1
    document = {"benchmark": name, **environment, **measured, "load_average_after": load_average()}
    write_json(out / f"{name}.json", document)
    print(draw(document), end="")
    print(f"written: {out / f'{name}.json'}")
    return 0
