"""`invert`: photographs that have labels already become pictures that a generator can paint."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from labelmint_export.annotations import AnnotatedSet, write_annotations
from labelmint_export.annotations.writing import check_names, check_new_folder
from labelmint_export.commands.checkpoints import add_generator, read_generator
from labelmint_export.commands.naming import name_classes
from labelmint_export.commands.threads import add_threads, use_threads
from labelmint_export.errors import AnnotationError
from labelmint_export.inversion.perceptual import load_features
from labelmint_export.inversion.photographs import read_photographs
from labelmint_export.inversion.projector import Inversion, InversionSettings, project
from labelmint_export.placing import check_file_place, file_placed_whole
from labelmint_export.stored import write_json

MAX_ERROR = 10.0


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    defaults = InversionSettings()
    parser = commands.add_parser(
        "invert",
        help="find latents that paint photographs, so that their labels can be imported",
        description="Find latents that paint photographs. The folder holds what the generator makes of them, under the "
        "names of the photographs: import-annotations --rescale then brings their labels. Pictures that are not "
        "reconstructed are left out and reported.",
    )
    add_generator(parser)
    parser.add_argument("--images", type=Path, required=True, help="folder of square photographs")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--classes", nargs="+", required=True, metavar="NAME", help="classes, background first")
    parser.add_argument("--keypoints", nargs="*", default=[], metavar="NAME", help="points")
    parser.add_argument(
        "--features", type=Path,
        help="compare features too: a segmentation network (.safetensors from train-oracle), a folder of train-gan or "
        "keep-networks, or a StyleGAN .pkl or .pt of another program that holds the discriminator, which is taken",
    )  # fmt: skip
    parser.add_argument(
        "--generator-class", type=int, metavar="INDEX",
        help="class of a conditional generator, where the search starts; the mean of all if not given",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, default=defaults.steps, help="of the optimiser, for each batch (default %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=defaults.batch_size, help="photographs at a time (default %(default)s)"
    )
    parser.add_argument(
        "--max-error", type=float, default=MAX_ERROR, metavar="LEVELS",
        help="leave out what differs by more on average, of 255 (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="PNG: photographs above, reconstructions below")
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the errors, as JSON")
    add_threads(parser)
    parser.set_defaults(run=run_invert)


def run_invert(arguments: argparse.Namespace) -> str:
    """Invert, write what was reconstructed, and give the errors."""
    if not 0 < arguments.max_error <= 255:
        raise AnnotationError(
            f"--max-error is {arguments.max_error}, expected more than 0, at most 255 levels", field="max_error"
        )
    check_new_folder(arguments.out)
    for path, option in ((arguments.sheet, "--sheet"), (arguments.report, "--report")):
        if path is not None:
            check_file_place(path, option)
    use_threads(arguments)
    settings = InversionSettings(steps=arguments.steps, batch_size=arguments.batch_size)
    schema = name_classes(arguments.classes, arguments.keypoints)
    generator = read_generator(arguments)
    features = None if arguments.features is None else load_features(arguments.features, generator.config)
    names, photographs = read_photographs(arguments.images, generator.config.resolution)
    check_names(names)
    found = project(generator, photographs, features, settings, arguments.generator_class)
    kept = np.flatnonzero(found.error <= arguments.max_error)
    report = _report(names, found, kept, arguments.max_error)
    if arguments.sheet is not None:
        _save_sheet(photographs, found, arguments.sheet)
    if arguments.report is not None:
        write_json(arguments.report, report)
    if not len(kept):
        raise AnnotationError(
            f"no picture of {arguments.images} was reconstructed: the smallest error is {found.error.min():.1f} "
            f"levels, --max-error {arguments.max_error:g}; does the generator paint such pictures?",
            field="max_error",
        )
    unlabelled = AnnotatedSet.unlabelled(
        schema,
        found.pictures[kept],
        z=torch.zeros(len(kept), generator.config.z_dim),  # there is none: w_plus alone paints them
        ws=found.ws[torch.from_numpy(kept)],
        names=tuple(names[index] for index in kept),
    )
    write_annotations(unlabelled, arguments.out)
    return f"{json.dumps(report, indent=1)}\nwrote {arguments.out}: {len(kept)} of {len(names)} pictures"


def _report(
    names: tuple[str, ...], found: Inversion, kept: np.ndarray[tuple[int], np.dtype[np.intp]], max_error: float
) -> dict[str, object]:
    chosen = set(kept.tolist())
    return {
        "max_error_levels": max_error,
        "median_error_levels": round(float(np.median(found.error)), 3),
        "pictures": {
            name: {"error_levels": round(float(found.error[index]), 3), "kept": index in chosen}
            for index, name in enumerate(names)
        },
    }


def _save_sheet(photographs: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], found: Inversion, path: Path) -> None:
    rows = [np.concatenate(list(pictures), axis=1) for pictures in (photographs, found.pictures)]
    with file_placed_whole(path) as partial:
        Image.fromarray(np.concatenate(rows)).save(partial, "PNG")
