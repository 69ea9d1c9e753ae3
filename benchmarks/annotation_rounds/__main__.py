"""`python -m benchmarks.annotation_rounds`: pictures annotated at once, against half of them chosen by an interpreter.

The oracle annotates in a person's place, and judges the interpreters on pictures that nobody annotated.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.argument_types import distinct_seeds, natural_int, positive_int, result_folder
from benchmarks.processes.worker import ROOT
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.reporting.tables import markdown_table
from labelmint_export import load_generator
from labelmint_export.annotations import AnnotatedSet, concatenate
from labelmint_export.generator import Backbone
from labelmint_export.generator.drawing import draw_latents
from labelmint_export.interpreter.choosing import choose
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig
from labelmint_export.interpreter.recolouring import recolour
from labelmint_export.interpreter.report import judge
from labelmint_export.interpreter.training import InterpreterTraining, train_interpreter
from labelmint_export.oracle.annotating import annotate
from labelmint_export.oracle.network import Segmenter, load_segmenter

SHIPPED = ROOT / "export/toonhead"
AT_ONCE, IN_ROUNDS = "at once", "in two rounds"
_TOPOLOGY = ("keypoint_names", "skeleton", "left_right_pairs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error.
    """
    parser = _make_parser()
    parsed = parser.parse_args(arguments)
    if not 2 <= parsed.count <= parsed.candidates:
        parser.error(f"count is {parsed.count}, expected 2, a picture a round, to the {parsed.candidates} candidates")

    def measure() -> Document:
        generator, oracle = load_generator(parsed.generator), load_segmenter(parsed.oracle)
        runs = [run for seed in parsed.seeds for run in _compare(generator, oracle, parsed, seed)]
        settings = ("count", "candidates", "judged", "members", "steps", "copies")
        return {"configuration": {key: getattr(parsed, key) for key in settings}, "runs": runs}

    return run_benchmark(
        "annotation_rounds", arguments, measure, lambda report: draw_summary(report["runs"]), parsed.out
    )


def _compare(generator: Backbone, oracle: Segmenter, parsed: argparse.Namespace, seed: int) -> list[Document]:
    """Train and judge an interpreter for each way; the first half is the same in both."""
    z, c = draw_latents(generator.config, seed, np.arange(parsed.candidates, dtype=np.uint64))
    with torch.no_grad():
        ws = generator.mapping(z, c)
    half = parsed.count // 2
    first = _without_keypoints(annotate(generator, oracle, z[:half], ws[:half]))
    unsure = choose(generator, z, ws, parsed.count - half, [first], _train(generator, first, parsed))
    following = slice(half, parsed.count)
    second = {AT_ONCE: (z[following], ws[following]), IN_ROUNDS: (unsure.z, unsure.ws)}
    runs: list[Document] = []
    for way, (its_z, its_ws) in second.items():
        drawn = concatenate([first, _without_keypoints(annotate(generator, oracle, its_z, its_ws))])
        scores = judge(
            generator,
            _train(generator, drawn, parsed),
            oracle,
            tuple(drawn.schema.class_names),
            count=parsed.judged,
        )
        runs.append({"seed": seed, "way": way, "miou": scores["miou"], "iou": scores["iou"]})
        print(f"seed {seed}, {way}: mIoU {scores['miou']:.4f}", flush=True)
    return runs


def _without_keypoints(annotated: AnnotatedSet) -> AnnotatedSet:
    schema = replace(annotated.schema, **dict.fromkeys(_TOPOLOGY, ()))
    return replace(annotated, schema=schema, keypoints=annotated.keypoints[:, :0])


def _train(generator: Backbone, annotated: AnnotatedSet, parsed: argparse.Namespace) -> Interpreter:
    config = InterpreterConfig(
        taps=generator.tap_specs,
        label_resolution=annotated.masks.shape[1],
        num_classes=len(annotated.schema.class_names),
        num_members=parsed.members,
        num_keypoints=0,
    )
    learned = recolour(generator, annotated, parsed.copies) if parsed.copies else annotated
    return train_interpreter(generator, learned, config, InterpreterTraining(max_steps=parsed.steps))


def draw_summary(runs: Sequence[Document]) -> str:
    """A row a seed, and their mean."""
    by_seed: dict[str, dict[str, float]] = {}
    for run in runs:
        by_seed.setdefault(str(run["seed"]), {})[run["way"]] = run["miou"]
    by_seed["mean"] = {way: float(np.mean([one[way] for one in by_seed.values()])) for way in (AT_ONCE, IN_ROUNDS)}
    rows = [[seed, *(f"{one[way]:.3f}" for way in (AT_ONCE, IN_ROUNDS))] for seed, one in by_seed.items()]
    return markdown_table(["seed", f"mIoU, {AT_ONCE}", f"mIoU, {IN_ROUNDS}"], rows)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.annotation_rounds",
        description="Compare interpreters: all pictures annotated at once, or half of them chosen by an interpreter of "
        "the other half, which is least sure of them (`sample --uncertain`).",
    )
    parser.add_argument(
        "--generator", type=Path, default=SHIPPED / "generator.safetensors", help="default: the shipped one"
    )
    parser.add_argument("--oracle", type=Path, default=SHIPPED / "oracle.safetensors", help="default: the shipped one")
    parser.add_argument("--seeds", type=distinct_seeds, default=(1, 2, 3), help="of the pictures (default 1,2,3)")
    parser.add_argument("--count", type=positive_int, default=16, help="pictures to annotate (default %(default)s)")
    parser.add_argument("--candidates", type=positive_int, default=200, help="to choose from (default %(default)s)")
    parser.add_argument("--judged", type=positive_int, default=150, help="unseen pictures (default %(default)s)")
    parser.add_argument("--members", type=positive_int, default=10, help="pixel classifiers (default %(default)s)")
    parser.add_argument(
        "--steps",
        type=positive_int,
        default=InterpreterTraining().max_steps,
        help="of a training, at most (default %(default)s)",
    )
    parser.add_argument(
        "--copies", type=natural_int, default=0, help="recoloured, of each picture (default %(default)s)"
    )
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
