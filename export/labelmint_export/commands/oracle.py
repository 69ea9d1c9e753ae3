"""`train-oracle`: the network that stands in for a person's labels."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from labelmint_export.commands.scores import without_nan
from labelmint_export.commands.settings import explain
from labelmint_export.commands.threads import add_threads, use_threads
from labelmint_export.datasets.toonhead import CLASS_NAMES, KEYPOINT_NAMES
from labelmint_export.devices import DEVICES, choose_device
from labelmint_export.errors import CheckpointError
from labelmint_export.oracle.network import SegmenterConfig, load_segmenter, save_segmenter
from labelmint_export.oracle.sets import load_labelled
from labelmint_export.oracle.training import SegmenterTraining, evaluate_segmenter, train_segmenter
from labelmint_export.placing import check_file_place
from labelmint_export.stored import read_json

DEFAULTS = SegmenterTraining(steps=5000, blur_share=0.5)
SETTINGS = ("steps", "batch_size", "learning_rate", "heatmap_weight", "seed")


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    parser = commands.add_parser("train-oracle", help="train a network on rendered pictures with true masks")
    parser.add_argument("--train", type=Path, required=True, help=".npz from `render --labels`")
    parser.add_argument(
        "--test", type=Path, required=True, help=".npz to score with, from `render --labels --split test`"
    )
    parser.add_argument("--out", type=Path, required=True, help=".safetensors to write")
    parser.add_argument("--start-from", type=Path, help=".safetensors of an oracle to go on from, with new settings")
    for name in SETTINGS:
        default = getattr(DEFAULTS, name)
        text = explain(SegmenterTraining, name, f"{default}")
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default, help=text)
    add_threads(parser)
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to train (default auto)")
    parser.set_defaults(run=run_train)


def _read_report(path: Path) -> dict[str, Any]:  # Any: parsed JSON, which goes into JSON
    """Read what `NAME.json` says of how the oracle `NAME.safetensors` was trained.

    Raises:
        CheckpointError: It says nothing.
    """
    record = path.with_suffix(".json")
    report = read_json(record).get("report")
    if not isinstance(report, dict):
        raise CheckpointError(
            f"report in {record} is {type(report).__name__}, expected the object that train-oracle wrote; give an "
            "oracle with its own .json",
            field="report",
        )
    return report


def run_train(arguments: argparse.Namespace) -> str:
    """Train, score on held-out pictures, write."""
    use_threads(arguments)
    check_file_place(arguments.out, "--out", ".safetensors")
    device = choose_device(arguments.device)
    chosen = {name: getattr(arguments, name) for name in SETTINGS}
    settings = dataclasses.replace(DEFAULTS, **chosen, device=device)
    config = SegmenterConfig(num_classes=len(CLASS_NAMES), num_keypoints=len(KEYPOINT_NAMES))
    train, test = load_labelled(arguments.train, config), load_labelled(arguments.test, config)
    start, started_from = None, None
    if arguments.start_from is not None:
        start, started_from = load_segmenter(arguments.start_from), _read_report(arguments.start_from)
    network = train_segmenter(config, train.shuffled_batches, settings, start=start, description="oracle")
    report = without_nan(evaluate_segmenter(network, test, CLASS_NAMES))
    report |= {"num_training_pictures": len(train.pictures), "steps": settings.steps}
    if started_from is not None:
        report["started_from"] = started_from
    save_segmenter(network, arguments.out, report)
    return json.dumps(report, indent=1)
