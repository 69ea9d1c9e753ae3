"""`python -m benchmarks.true_masks`: an interpreter, and the oracle, against masks that nobody had to guess.

A training in stages of codes keeps a w for each picture of the ToonHead set (`train-gan --code-images`). What
synthesis paints from it shows the parts of that picture, whose true mask is known. So this tells what `report`, whose
judge is the oracle, cannot: how much is lost on the way from the set over synthesis to the labels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from benchmarks.argument_types import positive_int, result_folder, share
from benchmarks.errors import BenchmarkError
from benchmarks.processes.worker import ROOT
from benchmarks.reporting.command import run_benchmark
from benchmarks.reporting.files import RESULTS_FOLDER, Document
from benchmarks.reporting.tables import markdown_table
from labelmint_export.datasets.toonhead import CLASS_NAMES, Split, ToonHeadSet
from labelmint_export.gan.growing import load_networks
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import load_generator
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.interpreter.labelling import check_fit, label_ws
from labelmint_export.interpreter.storage import load_interpreter
from labelmint_export.metrics import confusion, iou_per_class, miou
from labelmint_export.oracle.network import Segmenter, load_segmenter, predict

SHIPPED = ROOT / "export/toonhead"
INTERPRETER, ORACLE = "interpreter", "oracle"
BATCH_SIZE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the result.

    Args:
        arguments: Without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after a printed error.
    """
    parsed = _make_parser().parse_args(arguments)
    return run_benchmark(
        "true_masks", arguments, lambda: _measure(parsed), lambda report: draw_table(report["scores"]), parsed.out
    )


def _measure(parsed: argparse.Namespace) -> Document:
    generator, interpreter = load_generator(parsed.generator), load_interpreter(parsed.interpreter)
    check_fit(generator, interpreter)
    indices, codes = _take_codes(parsed.networks, parsed.count)
    avatars = ToonHeadSet(
        resolution=interpreter.config.label_resolution, split=Split.TRAIN, pose_range=parsed.pose_range
    )
    true = np.stack([avatars.render(index).mask for index in tqdm(indices, desc="true masks", mininterval=2.0)])
    scores = compare(generator, interpreter, load_segmenter(parsed.oracle), codes, true)
    return {"configuration": {"count": parsed.count, "pose_range": parsed.pose_range}, "scores": scores}


def _take_codes(folder: Path, count: int) -> tuple[list[int], torch.Tensor]:
    """Codes of pictures at even steps through those that have one: their indices, and float32 [count, D]."""
    codes = load_networks(folder).codes
    if codes is None or len(codes) < count:
        raise BenchmarkError(
            f"{folder} has {0 if codes is None else len(codes)} codes, expected at least {count}; give the folder of a "
            "training with --code-images, or a smaller --count",
            field="networks",
        )
    indices = [(2 * i + 1) * len(codes) // (2 * count) for i in range(count)]
    return indices, codes[indices]


def compare(
    generator: Generator,
    interpreter: Interpreter,
    oracle: Segmenter,
    codes: torch.Tensor,
    true: npt.NDArray[np.uint8],
) -> Document:
    """Label what synthesis paints from codes, and score it.

    Args:
        generator: Paints.
        interpreter: Labels from the taps.
        oracle: Labels from the pictures alone: about the most that synthesis still shows.
        codes: float32 [N, D], w.
        true: uint8 [N, H, W], masks of the pictures that the codes belong to.

    Returns:
        mIoU and IoU of each class, by who labelled.
    """
    fused, num_classes = FusedInterpreter(interpreter), len(CLASS_NAMES)
    counts = {INTERPRETER: np.zeros((num_classes, num_classes), np.int64)}
    counts[ORACLE] = counts[INTERPRETER].copy()
    for start in tqdm(range(0, len(codes), BATCH_SIZE), desc="labels", unit="batch", mininterval=2.0):
        ws = codes[start : start + BATCH_SIZE, None].expand(-1, generator.config.num_ws, -1)
        pictures, output = label_ws(generator, fused, ws)
        expected = true[start : start + BATCH_SIZE]
        counts[INTERPRETER] += confusion(output.label.numpy(), expected, num_classes)
        counts[ORACLE] += confusion(predict(oracle, pictures).mask, expected, num_classes)
    return {
        name: {
            "miou": miou(matrix),
            # JSON has no NaN: a class that neither truth nor labels hold has no IoU.
            "iou": {
                one: None if np.isnan(iou) else float(iou)
                for one, iou in zip(CLASS_NAMES, iou_per_class(matrix), strict=True)
            },
        }
        for name, matrix in counts.items()
    }


def draw_table(scores: Document) -> str:
    """A row a class, a column each for interpreter and oracle."""
    rows = [["mIoU", *(f"{scores[name]['miou']:.3f}" for name in (INTERPRETER, ORACLE))]]
    for one in CLASS_NAMES:
        found = [scores[name]["iou"][one] for name in (INTERPRETER, ORACLE)]
        rows.append([one, *("-" if iou is None else f"{iou:.3f}" for iou in found)])
    return markdown_table(["IoU with the true masks", INTERPRETER, ORACLE], rows)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.true_masks",
        description="Score an interpreter, and the oracle, on what synthesis paints from the codes of ToonHead "
        "pictures, against the true masks of these pictures.",
    )
    parser.add_argument(
        "--generator", type=Path, default=SHIPPED / "generator.safetensors", help="default: the shipped one"
    )
    parser.add_argument(
        "--interpreter", type=Path, default=SHIPPED / "interpreter.safetensors", help="default: the shipped one"
    )
    parser.add_argument("--oracle", type=Path, default=SHIPPED / "oracle.safetensors", help="default: the shipped one")
    parser.add_argument(
        "--networks", type=Path, default=SHIPPED / "networks", help="folder with the codes; default: the shipped ones"
    )
    parser.add_argument("--count", type=positive_int, default=240, help="pictures (default %(default)s)")
    parser.add_argument(
        "--pose-range", type=share, default=0.4, help="of the set that the codes belong to (default %(default)s)"
    )
    parser.add_argument("--out", type=result_folder, default=RESULTS_FOLDER, help="folder for the result")
    return parser


if __name__ == "__main__":
    sys.exit(main())
