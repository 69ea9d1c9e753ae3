"""`train-oracle`: the network that stands in for a person's labels."""

import argparse
import json
from pathlib import Path

from labelmint_export.commands.threads import add_threads, use_threads
from labelmint_export.datasets.toonhead import CLASS_NAMES, KEYPOINT_NAMES
from labelmint_export.generator.snapshots import read_json
from labelmint_export.oracle.network import SegmenterConfig, load_segmenter, save_segmenter
from labelmint_export.oracle.sets import load_labelled
from labelmint_export.oracle.training import SegmenterTraining, evaluate_segmenter, train_segmenter
from labelmint_export.placing import check_file_place


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    parser = commands.add_parser("train-oracle", help="train a network on rendered pictures with true masks")
    parser.add_argument("--train", type=Path, required=True, help=".npz from `render --labels`")
    parser.add_argument("--test", type=Path, required=True, help=".npz of held-out combinations")
    parser.add_argument("--out", type=Path, required=True, help=".safetensors to write")
    parser.add_argument("--start-from", type=Path, help=".safetensors of an oracle to go on from")
    parser.add_argument("--steps", type=int, default=5000, help="optimiser steps (default 5000)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures a step (default 16)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak of the schedule (default 0.003)")
    parser.add_argument("--heatmap-weight", type=float, default=300.0, help="of the keypoints' loss (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default 0)")
    add_threads(parser)
    parser.set_defaults(run=run_train)


def run_train(arguments: argparse.Namespace) -> str:
    """Train, score on held-out pictures, write."""
    use_threads(arguments)
    check_file_place(arguments.out, "--out", ".safetensors")
    train, test = load_labelled(arguments.train), load_labelled(arguments.test)
    config = SegmenterConfig(num_classes=len(CLASS_NAMES), num_keypoints=len(KEYPOINT_NAMES))
    settings = SegmenterTraining(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        heatmap_weight=arguments.heatmap_weight,
        seed=arguments.seed,
        blur_share=0.5,
    )
    start = None if arguments.start_from is None else load_segmenter(arguments.start_from)
    network = train_segmenter(config, train.shuffled_batches, settings, start=start, description="oracle")
    report = evaluate_segmenter(network, test, CLASS_NAMES)
    report |= {"num_training_pictures": len(train.pictures), "steps": settings.steps}
    if arguments.start_from is not None:
        report["started_from"] = read_json(arguments.start_from.with_suffix(".json"))["report"]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_segmenter(network, arguments.out, report)
    return json.dumps(report, indent=1)
