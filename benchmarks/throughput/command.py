"""The command line of the throughput benchmark."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.argument_types import natural_int, positive_float, positive_int, result_folder
from benchmarks.reporting.environment import describe_command, describe_environment
from benchmarks.reporting.files import RESULTS_FOLDER, write_json, write_text
from benchmarks.throughput.measuring import PROVIDERS, ThroughputSettings, measure
from benchmarks.throughput.summary import TARGET_RATIO, build_report, draw_page, draw_table
from labelmint.errors import LabelmintError
from labelmint_service.engine.loading import ENGINES
from labelmint_service.settings import EMBEDDED_BUNDLE

QUICK_ROUNDS = 2
QUICK_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the results.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error. A ratio below the target is a result, not an error.
    """
    parsed = _make_parser().parse_args(arguments)
    defaults = ThroughputSettings(bundle=parsed.bundle)
    settings = ThroughputSettings(
        bundle=parsed.bundle,
        engine=parsed.engine,
        provider=parsed.provider,
        rounds=parsed.rounds or (QUICK_ROUNDS if parsed.quick else defaults.rounds),
        seconds=parsed.seconds or (QUICK_SECONDS if parsed.quick else defaults.seconds),
        warmup_batches=parsed.warmup_batches,
        seed=parsed.seed,
    )
    environment = describe_environment(describe_command("benchmarks", arguments))
    try:
        report = build_report(settings, measure(settings), environment)
    except LabelmintError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    usual = (defaults.engine, defaults.provider)
    name = "-".join(["service", *(one for one in (parsed.engine, parsed.provider) if one not in usual)])
    write_json(parsed.out / f"{name}.json", report)
    write_text(parsed.out / f"{name}.md", draw_page(report, name))
    print(draw_table(report), end="")
    for contender, summary in report["contenders"].items():
        if not summary.get("reaches_target", True):
            print(f"{contender} keeps {summary['ratio_to_engine']:.3f} of the engine's speed, below {TARGET_RATIO}")
    print(f"written: {parsed.out / f'{name}.json'}, {parsed.out / f'{name}.md'}")
    return 0


def _make_parser() -> argparse.ArgumentParser:
    defaults = ThroughputSettings(bundle=EMBEDDED_BUNDLE)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure how much of its engine's speed the service keeps, through gRPC to a client beside it.",
    )
    parser.add_argument(
        "--bundle", type=Path, default=defaults.bundle, help="folder of the bundle (default: the embedded one)"
    )
    parser.add_argument("--engine", choices=ENGINES, default=defaults.engine, help="what runs it (default %(default)s)")
    parser.add_argument(
        "--provider", choices=PROVIDERS, default=defaults.provider, help="what that runs on (default %(default)s)"
    )
    parser.add_argument("--rounds", type=positive_int, help=f"turns of each contender (default {defaults.rounds})")
    parser.add_argument(
        "--seconds", type=positive_float, help=f"length of a turn, seconds (default {defaults.seconds:g})"
    )
    parser.add_argument(
        "--warmup-batches",
        type=positive_int,
        default=defaults.warmup_batches,
        help=f"batches in front of each turn that are not timed (default {defaults.warmup_batches})",
    )
    parser.add_argument(
        "--seed", type=natural_int, default=defaults.seed, help=f"of the addresses (default {defaults.seed})"
    )
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the results")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS:g} s, to see that it works"
    )
    return parser
