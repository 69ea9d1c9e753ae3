"""`python -m benchmarks.endurance`: 200 streams for five minutes; none may break, health and memory stay."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.argument_types import positive_float, positive_int, result_folder
from benchmarks.endurance.measuring import SAMPLE_MEMORY_S, endure
from benchmarks.reporting.environment import describe_command, describe_environment, describe_origin, load_average
from benchmarks.reporting.files import RESULTS_FOLDER, write_json, write_text
from benchmarks.reporting.tables import markdown_table
from labelmint.bundle import open_bundle
from labelmint.errors import LabelmintError
from labelmint_service.engine.loading import ENGINES
from labelmint_service.settings import EMBEDDED_BUNDLE

LONGEST_HEALTH_MS = 100.0
LEAST_SECONDS = 4 * SAMPLE_MEMORY_S
MOST_GROWTH = 0.05
"""Of memory, from the end of the warm-up to the end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results, judge.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 if a bound was not kept or the measurement failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=EMBEDDED_BUNDLE, help="folder of the bundle")
    parser.add_argument("--engine", choices=ENGINES, default="fused")
    parser.add_argument("--streams", type=positive_int, default=200, help="at a time")
    parser.add_argument("--seconds", type=positive_float, default=300.0)
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the results")
    parsed = parser.parse_args(arguments)
    if parsed.seconds < LEAST_SECONDS:
        parser.error(f"seconds is {parsed.seconds:g}, expected at least {LEAST_SECONDS:g}: memory has to show a line")
    command = describe_command("benchmarks.endurance", arguments)
    report: dict[str, Any] = {"benchmark": "endurance", **describe_environment(command)}
    try:
        opened = open_bundle(parsed.bundle)
        result: dict[str, Any] = endure(parsed.bundle, parsed.engine, opened.name, parsed.streams, parsed.seconds)
    except LabelmintError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    faults = find_faults(result)
    report |= {"model": opened.name, "digest": opened.digest, "engine": parsed.engine}
    report |= {"streams": parsed.streams, "seconds": parsed.seconds}
    report |= {"result": result, "faults": faults, "load_average_after": load_average()}
    write_json(parsed.out / "endurance.json", report)
    text = summarize(report)
    write_text(parsed.out / "endurance.md", text)
    print(text)
    for fault in faults:
        print(f"benchmarks: {fault}", file=sys.stderr)
    return 1 if faults else 0


def find_faults(result: dict[str, Any]) -> list[str]:  # Any: a document of JSON
    """What is not as it has to be, a sentence each."""
    faults = [f"a stream broke: {error}" for error in result["errors"][:10]]
    if not result["least_samples_of_a_stream"]:
        faults.append("a stream got no sample")
    if result["health_failed"]:
        faults.append(f"{result['health_failed']} health checks did not say SERVING")
    if result["health_ms"]["p99"] >= LONGEST_HEALTH_MS:
        faults.append(f"p99 of health checks is {result['health_ms']['p99']} ms, expected below {LONGEST_HEALTH_MS:g}")
    memory = result["memory"]
    grown = memory["at_the_end_mib"] / memory["after_warm_up_mib"] - 1
    if grown > MOST_GROWTH:
        faults.append(f"memory grew by {grown:.1%} after the warm-up, expected at most {MOST_GROWTH:.0%}")
    return faults


def summarize(report: dict[str, Any]) -> str:  # Any: a document of JSON
    """A table of the result, and the command that gave it."""
    result, memory = report["result"], report["result"]["memory"]
    rows = [
        ("streams that broke", str(len(result["errors"]))),
        ("samples/s, all streams", f"{result['samples_per_s']:.2f}"),
        ("fewest samples of a stream", str(result["least_samples_of_a_stream"])),
        ("health check, median ms", f"{result['health_ms']['p50']:.1f}"),
        ("health check, p99 ms", f"{result['health_ms']['p99']:.1f}"),
        ("memory after the warm-up, MiB", f"{memory['after_warm_up_mib']:.1f}"),
        ("memory at the end, MiB", f"{memory['at_the_end_mib']:.1f}"),
        ("growth, MiB a minute", f"{memory['mib_per_minute']:.2f}"),
    ]
    heading = (
        f"{report['streams']} streams for {report['seconds']:g} s, model {report['model']}, engine {report['engine']}"
    )
    origin = describe_origin(report)
    return f"{heading}\n\n{markdown_table(('what', 'measured'), rows)}\n`{report['command']}`: {origin}\n"


if __name__ == "__main__":
    sys.exit(main())
