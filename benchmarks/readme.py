"""`python -m benchmarks.readme`: writes what the result files say into README's tables of speed.

`make bench` ends with it. Everything between the two marks is made; the prose around it is not.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reporting.environment import describe_origin
from benchmarks.reporting.files import RESULTS_FOLDER, Document, write_text
from benchmarks.reporting.tables import markdown_table
from benchmarks.throughput.summary import EARLIER_COMMAND
from benchmarks.workloads.summary import find_commands
from labelmint_service.settings import EMBEDDED_BUNDLE

BEGIN, END = "<!-- speed: made by `make bench` -->\n", "<!-- /speed -->\n"
README = Path(__file__).resolve().parents[1] / "README.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 if README has no marks.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER, help="folder of the results")
    parser.add_argument("--readme", type=Path, default=README, help="file with the marks")
    parsed = parser.parse_args(arguments)
    text = parsed.readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{parsed.readme} lacks the marks {BEGIN.strip()} and {END.strip()}; put them in", file=sys.stderr)
        return 1
    write_text(parsed.readme, f"{before}{BEGIN}\n{draw_speed(parsed.results)}\n{END}{after}")
    return 0


def draw_speed(results: Path) -> str:
    """The tables, each with where and when it was measured and the command that did."""
    parts = [_service(_load(results / "service.json"), _load(results / "service-fused.json"))]
    parts.append(_workloads(_load(results / "workloads.json")))
    parts.append(_transport(_load(results / "transport.json")))
    return "\n".join(part for part in parts if part)


def _service(*reports: Document | None) -> str:
    rows = []
    known = [report for report in reports if report]
    for report in known:
        engine, model = (report["configuration"][key] for key in ("engine", "model"))
        if model != EMBEDDED_BUNDLE.name:
            engine = f"{engine}, model {model} instead"
        for name, entry in report["contenders"].items():
            ratio = entry.get("ratio_to_engine")
            rate, kept = f"{entry['samples_per_s']:.2f}", "" if ratio is None else f"{ratio:.3f}"
            rows.append((engine, name.replace("_", " "), rate, kept))
    if not rows:
        return ""
    table = markdown_table(("engine, embedded model", "contender", "samples/s", "of the engine"), rows)
    return f"{table}\n{_origins([(report.get('command', EARLIER_COMMAND), report) for report in known])}\n"


def _workloads(report: Document | None) -> str:
    if report is None:
        return ""
    measured = (entry for part in report["workloads"].values() for entry in part["contenders"].values())
    stages = ("synthesis", "interpreter") if any("times_their_floor" in entry for entry in measured) else ()
    rows = []
    for name, part in report["workloads"].items():
        for contender, entry in part["contenders"].items():
            times, floors = entry.get("times_the_reference"), entry.get("times_their_floor", {})
            rows.append(
                (
                    name,
                    contender,
                    f"{entry['ms_a_picture']['p50'] / 1e3:.3f}",
                    f"{entry['peak_rss_bytes'] / 1e9:.2f}",
                    "" if times is None else f"{times:.1f}",
                    *(f"{floors[stage]:.2f}" if stage in floors else "" for stage in stages),
                    f"{entry['label_agreement']:.3%}",
                )
            )
    header = (
        *("workload", "contender", "seconds a picture", "GB", "times the reference"),
        *(f"{stage} to its floor" for stage in stages),
        "same labels",
    )
    commands = find_commands(report["workloads"])
    origins = _origins([(commands[name], part) for name, part in report["workloads"].items()])
    return f"{markdown_table(header, rows)}\n{origins}\n"


def _transport(report: Document | None) -> str:
    if report is None:
        return ""
    rows = []
    for size, part in report["sizes"].items():
        for name, entry in part["contenders"].items():
            relative = entry.get("speed_of_labelmint")
            rates = (f"{entry['samples_per_s']:,.0f}", f"{entry['megabytes_per_s']:,.0f}")
            rows.append((f"{size} x {size}", name, *rates, "" if relative is None else f"{relative:.2f}"))
    table = markdown_table(("recorded sample", "stream", "samples/s", "MB/s", "labelmint to it"), rows)
    return f"{table}\n{_origins([(report['command'], report)])}\n"


def _origins(reports: Sequence[tuple[str, Document]]) -> str:
    """A line a command, with when and from which commit its results came."""
    by_command: dict[str, dict[str, None]] = {}
    for command, report in reports:
        by_command.setdefault(command, {})[describe_origin(report)] = None
    return "\n".join(f"`{command}`: {'; '.join(origins)}." for command, origins in by_command.items())


def _load(path: Path) -> Document | None:
    if not path.exists():
        return None
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


if __name__ == "__main__":
    sys.exit(main())
