"""`train-interpreter`, `import-interpreter` and `report`."""

import argparse
import json
from pathlib import Path

from labelmint.bundle import sha256_of_file
from labelmint_export.annotations import files_of, read_annotations, read_joined
from labelmint_export.checkpoints.classifiers import read_classifiers
from labelmint_export.commands.annotate import PSI_HELP
from labelmint_export.commands.checkpoints import add_generator, read_generator
from labelmint_export.commands.scores import without_nan
from labelmint_export.commands.settings import explain
from labelmint_export.commands.threads import add_threads, use_threads
from labelmint_export.errors import AnnotationError, TrainingError
from labelmint_export.interpreter.ensemble import InterpreterConfig
from labelmint_export.interpreter.recolouring import FINE_SIDE, choose_first_w, recolour, save_recoloured
from labelmint_export.interpreter.report import judge
from labelmint_export.interpreter.shrinking import USUAL_MOST, shrink_labels
from labelmint_export.interpreter.storage import load_interpreter, save_interpreter
from labelmint_export.interpreter.taps import TAP_SETS, select_taps
from labelmint_export.interpreter.training import InterpreterTraining, train_interpreter
from labelmint_export.oracle.network import load_segmenter
from labelmint_export.placing import check_file_place
from labelmint_export.stored import sha256_of_files

TAPS_HELP = f"layers to look at, or one of {', '.join(TAP_SETS)}; the outputs of all layers if not given"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    train = commands.add_parser("train-interpreter", help="train the style interpreter from annotated pictures")
    add_generator(train)
    train.add_argument(
        "--annotations",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="from `label` or `import-annotations`; several are learned from together",
    )
    train.add_argument("--out", type=Path, required=True, help=".safetensors to write")
    train.add_argument("--taps", nargs="+", metavar="LAYER", help=TAPS_HELP)
    train.add_argument(
        "--label-resolution",
        type=int,
        help="side of the labels, to which larger masks are reduced: the most frequent class of each field (default: "
        f"that of the pictures, at most {USUAL_MOST}, as DatasetGAN labels pictures of 1024)",
    )
    train.add_argument("--members", type=int, default=10, help="pixel classifiers that vote, at least 1 (default 10)")
    train.add_argument("--hidden", type=int, nargs=2, help="their widths (default 128 32, or 256 128 from 32 classes)")
    defaults = InterpreterTraining()
    train.add_argument("--steps", type=int, default=defaults.max_steps, help=explain(InterpreterTraining, "max_steps"))
    train.add_argument("--seed", type=int, default=defaults.seed, help=explain(InterpreterTraining, "seed"))
    train.add_argument(
        "--recoloured-copies",
        type=int,
        default=0,
        help="learn also from so many copies of each picture in the colours of others (style mixing), with its labels; "
        "memory grows as many times (default 0)",
    )
    train.add_argument(
        "--recolour-from",
        type=int,
        metavar="INDEX",
        help="index of the first of the ws that is another picture's in a copy (default: of the first layer at "
        f"{FINE_SIDE} x {FINE_SIDE})",
    )
    train.add_argument(
        "--recoloured-sheet",
        type=Path,
        help="PNG to write before the training: a row for each picture and its copies; no part may move",
    )
    add_threads(train)
    train.set_defaults(run=run_train)

    imported = commands.add_parser("import-interpreter", help="read the pixel classifiers that DatasetGAN trained")
    add_generator(imported)
    imported.add_argument("--classifiers", type=Path, required=True, help="folder of model_0.pth, model_1.pth, ...")
    imported.add_argument("--out", type=Path, required=True, help=".safetensors to write")
    imported.add_argument("--taps", nargs="+", metavar="LAYER", help=TAPS_HELP)
    imported.add_argument(
        "--label-resolution", type=int, help="side of the labels before the crop; the picture's if not given"
    )
    imported.set_defaults(run=run_import)

    report = commands.add_parser("report", help="score an interpreter on unseen GAN pictures; the oracle judges")
    add_generator(report)
    report.add_argument("--interpreter", type=Path, required=True, help=".safetensors from train-interpreter")
    report.add_argument("--oracle", type=Path, required=True, help=".safetensors from train-oracle")
    report.add_argument("--annotations", type=Path, required=True, help="folder with the names of the classes")
    report.add_argument("--count", type=int, default=300, help="pictures (default 300)")
    report.add_argument("--truncation-psi", type=float, default=1.0, help=PSI_HELP)
    report.set_defaults(run=run_report)


def run_train(arguments: argparse.Namespace) -> str:
    """Train and write."""
    check_file_place(arguments.out, "--out", ".safetensors")
    _check_recolouring(arguments)
    use_threads(arguments)
    generator = read_generator(arguments)
    annotated = read_joined(arguments.annotations)
    provenance: dict[str, object] = {
        "num_annotated_images": len(annotated),
        "annotations_sha256": sha256_of_files(files_of(arguments.annotations)),
        "generator_sha256": sha256_of_file(arguments.generator),
        "steps": arguments.steps,
        "seed": arguments.seed,
    }
    if arguments.recoloured_copies:
        first_w = choose_first_w(generator, arguments.recolour_from)
        provenance |= {"recoloured_copies": arguments.recoloured_copies, "recolour_from": first_w}
        annotated = recolour(generator, annotated, arguments.recoloured_copies, first_w)
        if arguments.recoloured_sheet is not None:  # before the training: who sees a part move can stop it
            save_recoloured(annotated, arguments.recoloured_sheet)
    annotated = shrink_labels(annotated, arguments.label_resolution)
    num_classes = len(annotated.schema.class_names)
    first, second = arguments.hidden or ((128, 32) if num_classes < 32 else (256, 128))
    config = InterpreterConfig(
        taps=select_taps(generator, arguments.taps),
        label_resolution=annotated.masks.shape[1],
        num_classes=num_classes,
        num_members=arguments.members,
        hidden_widths=(first, second),
        num_keypoints=len(annotated.schema.keypoint_names),
    )
    settings = InterpreterTraining(max_steps=arguments.steps, seed=arguments.seed)
    interpreter = train_interpreter(generator, annotated, config, settings)
    save_interpreter(interpreter, arguments.out, provenance)
    return f"wrote {arguments.out}: {config.num_members} members on {config.num_features} features"


def _check_recolouring(arguments: argparse.Namespace) -> None:
    if not arguments.recoloured_copies:
        for option in ("recoloured_sheet", "recolour_from"):
            if getattr(arguments, option) is not None:
                raise TrainingError(
                    f"{option} is given and recoloured_copies is 0, expected at least 1; give --recoloured-copies too",
                    field="recoloured_copies",
                )
    if arguments.recoloured_sheet is not None:
        check_file_place(arguments.recoloured_sheet, "--recoloured-sheet", ".png")


def run_import(arguments: argparse.Namespace) -> str:
    """Read and write."""
    check_file_place(arguments.out, "--out", ".safetensors")
    generator = read_generator(arguments)
    interpreter, files = read_classifiers(
        arguments.classifiers,
        taps=select_taps(generator, arguments.taps),
        label_resolution=arguments.label_resolution or generator.config.resolution,
    )
    provenance: dict[str, object] = {
        "imported_from": [path.name for path in files],
        "classifiers_sha256": sha256_of_files(files),
        "generator_sha256": sha256_of_file(arguments.generator),
    }
    save_interpreter(interpreter, arguments.out, provenance)
    config = interpreter.config
    return (
        f"wrote {arguments.out}: {config.num_members} members of {config.num_classes} classes on {config.num_features} "
        "features"
    )


def run_report(arguments: argparse.Namespace) -> str:
    """Give the scores as JSON."""
    if arguments.count < 1:
        raise AnnotationError(f"--count is {arguments.count}, expected at least 1", field="count")
    if not 0 <= arguments.truncation_psi <= 1:
        raise AnnotationError(
            f"--truncation-psi is {arguments.truncation_psi}, expected a number from 0 to 1", field="truncation_psi"
        )
    scores = judge(
        read_generator(arguments),
        load_interpreter(arguments.interpreter),
        load_segmenter(arguments.oracle),
        read_annotations(arguments.annotations).schema.class_names,
        count=arguments.count,
        truncation_psi=arguments.truncation_psi,
    )
    return json.dumps(without_nan(scores), indent=1)
