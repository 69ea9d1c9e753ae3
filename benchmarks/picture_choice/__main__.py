"""`python -m benchmarks.picture_choice`: distances of other pictures to the nearest of those that a rule chose."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.argument_types import positive_int, result_folder
from benchmarks.processes.worker import ROOT
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.reporting.tables import markdown_table
from labelmint_export import load_generator
from labelmint_export.generator.drawing import draw_latents
from labelmint_export.interpreter.choosing import look_at
from labelmint_export.interpreter.diversity import pick_diverse, pick_farthest

CANDIDATE_SEED = 7
OTHER_SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error.
    """
    parser = _make_parser()
    parsed = parser.parse_args(arguments)
    if parsed.count > parsed.candidates:
        parser.error(f"count is {parsed.count}, expected at most the {parsed.candidates} candidates")
    return run_benchmark("picture_choice", arguments, lambda: _measure(parsed), draw_summary, parsed.out)


def _measure(parsed: argparse.Namespace) -> Document:
    generator = load_generator(parsed.generator)
    looks, ws = [], []
    for seed, count in ((CANDIDATE_SEED, parsed.candidates), (OTHER_SEED, parsed.others)):
        z, c = draw_latents(generator.config, seed, np.arange(count, dtype=np.uint64), None)
        with torch.no_grad():
            ws.append(generator.mapping(z, c))
        looks.append(look_at(generator, ws[-1]))
    candidates, others = looks
    rules = {
        "the first": torch.arange(parsed.count),
        "middles in w": pick_diverse(ws[0][:, 0], parsed.count),
        "middles of pictures": pick_diverse(candidates, parsed.count),
        "farthest in w": pick_farthest(ws[0][:, 0], parsed.count),
        "farthest pictures (--diverse)": pick_farthest(candidates, parsed.count),
    }
    return {
        "generator": parsed.generator.name,
        "configuration": {key: getattr(parsed, key) for key in ("count", "candidates", "others")},
        "rules": measure_rules(candidates, others, rules),
    }


def measure_rules(candidates: torch.Tensor, others: torch.Tensor, rules: Mapping[str, torch.Tensor]) -> Document:
    """Compute how far other pictures are from the nearest chosen one.

    Args:
        candidates: float32 [N, D], small copies of pictures, levels.
        others: float32 [O, D], of pictures that were not to be chosen.
        rules: Name -> int64 [count], the places among the candidates.

    Returns:
        Name -> mean, 95th percentile and maximum of the root mean square difference, levels of 255.
    """
    root = candidates.shape[1] ** 0.5
    measured: Document = {}
    for name, chosen in rules.items():
        nearest = torch.cdist(others.double(), candidates[chosen].double()).amin(dim=1) / root
        values = {"mean": nearest.mean(), "p95": nearest.quantile(0.95), "max": nearest.max()}
        measured[name] = {key: round(float(value), 2) for key, value in values.items()}
    return measured


def draw_summary(report: Document) -> str:
    """A row a rule."""
    rows = [[name, *(f"{one[key]:.1f}" for key in ("mean", "p95", "max"))] for name, one in report["rules"].items()]
    return markdown_table(["rule", "mean", "95 %", "max"], rows)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.picture_choice",
        description="Compare rules that choose pictures to annotate, by how far others are from the nearest chosen.",
    )
    parser.add_argument(
        "--generator",
        type=Path,
        default=ROOT / "export/toonhead/generator.safetensors",
        help="default: the shipped one",
    )
    parser.add_argument("--count", type=positive_int, default=16, help="pictures to choose (default %(default)s)")
    parser.add_argument("--candidates", type=positive_int, default=400, help="to choose from (default %(default)s)")
    parser.add_argument("--others", type=positive_int, default=2000, help="to compare with (default %(default)s)")
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
