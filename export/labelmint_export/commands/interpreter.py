"""`train-interpreter` and `report`."""

import argparse
import json
from pathlib import Path

import torch

from labelmint_export.annotations import read_annotations
from labelmint_export.bundle.build import sha256_of_files
from labelmint_export.checkpoints.loading import load_stylegan2
from labelmint_export.commands.checkpoints import GENERATOR_HELP
from labelmint_export.errors import AnnotationError, TrainingError
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.ensemble import InterpreterConfig
from labelmint_export.interpreter.report import judge
from labelmint_export.interpreter.storage import load_interpreter, save_interpreter
from labelmint_export.interpreter.training import InterpreterTraining, train_interpreter
from labelmint_export.oracle.network import load_segmenter


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    train = commands.add_parser("train-interpreter", help="train the style interpreter from annotated pictures")
    train.add_argument("--generator", type=Path, required=True, help=GENERATOR_HELP)
    train.add_argument("--annotations", type=Path, required=True, help="folder from `label`, or filled after `sample`")
    train.add_argument("--out", type=Path, required=True, help=".safetensors to write")
    train.add_argument("--taps", nargs="+", metavar="LAYER", help="feature taps; all if not given")
    train.add_argument("--members", type=int, default=10, help="pixel classifiers (default 10)")
    train.add_argument("--hidden", type=int, nargs=2, help="their widths; 128 32, or 256 128 from 32 classes")
    train.add_argument(
        "--steps", type=int, default=InterpreterTraining().max_steps, help="at most (default %(default)s)"
    )
    train.add_argument("--seed", type=int, default=0, help="of weights and pixels (default 0)")
    train.add_argument("--threads", type=int, help="threads of torch")
    train.set_defaults(run=run_train)

    report = commands.add_parser("report", help="score an interpreter on unseen GAN pictures; the oracle judges")
    report.add_argument("--generator", type=Path, required=True, help=GENERATOR_HELP)
    report.add_argument("--interpreter", type=Path, required=True, help=".safetensors from train-interpreter")
    report.add_argument("--oracle", type=Path, required=True, help=".safetensors from train-oracle")
    report.add_argument("--annotations", type=Path, required=True, help="folder with the names of the classes")
    report.add_argument("--count", type=int, default=300, help="pictures (default 300)")
    report.add_argument("--truncation-psi", type=float, default=1.0, help="default 1")
    report.set_defaults(run=run_report)


def select_taps(available: tuple[TapSpec, ...], names: list[str] | None) -> tuple[TapSpec, ...]:
    """Pick taps by name, in the order of synthesis.

    Raises:
        TrainingError: A name is unknown.
    """
    if names is None:
        return available
    known = {tap.name for tap in available}
    for name in names:
        if name not in known:
            raise TrainingError(f"tap {name!r} is unknown, expected some of {sorted(known)}", field="taps")
    return tuple(tap for tap in available if tap.name in names)


def run_train(arguments: argparse.Namespace) -> str:
    """Train and write."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    generator = load_stylegan2(arguments.generator)
    annotated = read_annotations(arguments.annotations)
    num_classes = len(annotated.schema.class_names)
    first, second = arguments.hidden or ((128, 32) if num_classes < 32 else (256, 128))
    config = InterpreterConfig(
        taps=select_taps(generator.tap_specs, arguments.taps),
        label_resolution=annotated.masks.shape[1],
        num_classes=num_classes,
        num_members=arguments.members,
        hidden_widths=(first, second),
        num_keypoints=len(annotated.schema.keypoint_names),
    )
    settings = InterpreterTraining(max_steps=arguments.steps, seed=arguments.seed)
    interpreter = train_interpreter(generator, annotated, config, settings)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    provenance: dict[str, object] = {
        "num_annotated_images": len(annotated),
        "annotations_sha256": sha256_of_files(
            sorted(path for path in arguments.annotations.iterdir() if path.is_file())
        ),
        "generator_sha256": sha256_of_files([arguments.generator]),
        "steps": settings.max_steps,
        "seed": settings.seed,
    }
    save_interpreter(interpreter, arguments.out, provenance)
    return f"wrote {arguments.out}: {config.num_members} members on {config.num_features} features"


def run_report(arguments: argparse.Namespace) -> str:
    """Give the scores as JSON."""
    if arguments.count < 1:
        raise AnnotationError(f"--count is {arguments.count}, expected at least 1", field="count")
    if not 0 <= arguments.truncation_psi <= 1:
        raise AnnotationError(
            f"--truncation-psi is {arguments.truncation_psi}, expected a number from 0 to 1", field="truncation_psi"
        )
    scores = judge(
        load_stylegan2(arguments.generator),
        load_interpreter(arguments.interpreter),
        load_segmenter(arguments.oracle),
        read_annotations(arguments.annotations).schema.class_names,
        count=arguments.count,
        truncation_psi=arguments.truncation_psi,
    )
    return json.dumps(scores, indent=1)
