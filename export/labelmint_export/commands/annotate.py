"""`sample` and `label`: pictures to annotate, by a person or by the oracle."""

import argparse
import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from labelmint_export.annotations import AnnotatedSet, read_pictures, write_annotations
from labelmint_export.annotations.writing import check_new_folder
from labelmint_export.commands.checkpoints import add_generator, read_generator
from labelmint_export.commands.naming import name_classes
from labelmint_export.datasets.toonhead import CLASS_NAMES
from labelmint_export.errors import AnnotationError
from labelmint_export.generator import Backbone
from labelmint_export.generator.config import BackboneConfig
from labelmint_export.generator.drawing import class_vectors, draw_latents
from labelmint_export.generator.given_latents import read_latents
from labelmint_export.interpreter.choosing import Chosen, choose
from labelmint_export.interpreter.storage import load_interpreter
from labelmint_export.oracle.annotating import annotate
from labelmint_export.oracle.network import load_segmenter
from labelmint_export.pictures import paint

PSI_HELP = "how far w goes from its mean, 0 to 1: less than 1 gives fewer odd pictures and less variety (default 1)"
COUNT = 16
CANDIDATES = 400


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    sample = commands.add_parser("sample", help="write GAN pictures with their latents, to be drawn on")
    label = commands.add_parser("label", help="write GAN pictures annotated by the ToonHead oracle")
    for command in (sample, label):
        add_generator(command)
        command.add_argument("--out", type=Path, required=True, help="new folder")
        command.add_argument(
            "--count", type=int, help=f"pictures to write (default {COUNT}; all of --pick, --z or --w)"
        )
        command.add_argument("--seed", type=int, default=0, help="of the latents, 0 to 2**64 - 1 (default 0)")
        command.add_argument("--truncation-psi", type=float, default=1.0, help=PSI_HELP)
        command.add_argument(
            "--truncation-cutoff", type=int, default=0, help="leading ws to truncate; 0 for all (default 0)"
        )
        command.add_argument(
            "--generator-class", type=int, metavar="INDEX", help="class of a conditional generator; all if not given"
        )
        choice = command.add_mutually_exclusive_group()
        choice.add_argument(
            "--diverse", action="store_true", help="pick those of the candidates whose pictures differ most"
        )
        choice.add_argument(
            "--uncertain",
            type=Path,
            metavar="INTERPRETER",
            help="pick those of which this interpreter (.safetensors from train-interpreter) is least sure, and that "
            "lie apart from each other and from the annotated ones",
        )
        choice.add_argument(
            "--pick",
            type=int,
            nargs="+",
            metavar="INDEX",
            help="take the pictures of the seed with these numbers, picked by eye from a larger `sample`",
        )
        choice.add_argument(
            "--z",
            type=Path,
            metavar="NPY",
            help="take the pictures of these z, float [N, z_dim]: those that were annotated with another program",
        )
        choice.add_argument(
            "--w",
            type=Path,
            metavar="NPY",
            help="take the pictures of these w as they are, float [N, w_dim] or [N, num_ws, w_dim]",
        )
        command.add_argument(
            "--annotated", type=Path, nargs="+", default=[], metavar="FOLDER", help="leave out the pictures of these"
        )
        command.add_argument(
            "--candidates", type=int, default=CANDIDATES, help="pictures to pick from (default %(default)s)"
        )
    label.add_argument("--oracle", type=Path, required=True, help=".safetensors from train-oracle")
    sample.add_argument("--classes", nargs="+", required=True, metavar="NAME", help="classes to draw, background first")
    sample.add_argument("--keypoints", nargs="*", default=[], metavar="NAME", help="points to set")
    sample.set_defaults(run=run_sample)
    label.set_defaults(run=run_label)


def _paint(arguments: argparse.Namespace) -> tuple[Backbone, Chosen]:
    count = _count(arguments)
    check_new_folder(arguments.out)
    if not 0 <= arguments.truncation_psi <= 1:
        raise AnnotationError(
            f"--truncation-psi is {arguments.truncation_psi}, expected a number from 0 to 1", field="truncation_psi"
        )
    generator = read_generator(arguments)
    cutoff = arguments.truncation_cutoff
    if not 0 <= cutoff <= generator.config.num_ws:
        raise AnnotationError(
            f"--truncation-cutoff is {cutoff}, expected 0 to {generator.config.num_ws}", field="truncation_cutoff"
        )
    interpreter = None if arguments.uncertain is None else load_interpreter(arguments.uncertain)
    known = [read_pictures(folder) for folder in arguments.annotated]
    z, ws = _latents(arguments, generator, count, from_many=arguments.diverse or interpreter is not None or bool(known))
    if arguments.z is not None or arguments.w is not None:
        count = len(z)
    return generator, choose(generator, z, ws, count, known, interpreter, diverse=arguments.diverse)


def _latents(
    arguments: argparse.Namespace, generator: Backbone, count: int, *, from_many: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give z and ws of the pictures that are asked for, or of those to choose from."""
    config = generator.config
    if arguments.w is not None:
        _refuse_mapping(arguments)
        ws = _given(arguments, config, "w")
        return torch.zeros(len(ws), config.z_dim), ws  # there is no z
    if arguments.z is not None:
        z = _given(arguments, config, "z")
        c = class_vectors(config, len(z), arguments.generator_class)
    else:
        if from_many and arguments.pick is None and arguments.candidates < count:
            raise AnnotationError(
                f"--candidates is {arguments.candidates}, expected at least --count, {count}, pictures to choose from; "
                "give more",
                field="candidates",
            )
        numbers = arguments.pick or range(arguments.candidates if from_many else count)
        z, c = draw_latents(config, arguments.seed, np.array(numbers, dtype=np.uint64), arguments.generator_class)
    with torch.no_grad():
        return z, generator.mapping(z, c, arguments.truncation_psi, arguments.truncation_cutoff or None)


def _given(arguments: argparse.Namespace, config: BackboneConfig, kind: Literal["z", "w"]) -> torch.Tensor:
    """Latents of the file that `--z` or `--w` names."""
    latents = read_latents(getattr(arguments, kind), config, kind)
    if arguments.count not in (None, len(latents)):
        raise AnnotationError(
            f"--count is {arguments.count} and --{kind} holds {len(latents)} latents; leave --count out", field="count"
        )
    return latents


def _refuse_mapping(arguments: argparse.Namespace) -> None:
    """Refuse what says how w is made from z, where w is given."""
    for name, default in {"truncation_psi": 1.0, "truncation_cutoff": 0, "generator_class": None}.items():
        value = getattr(arguments, name)
        if value != default:
            raise AnnotationError(
                f"--{name.replace('_', '-')} is {value}, but --w is taken as it is; leave it out", field=name
            )


def _count(arguments: argparse.Namespace) -> int:
    if arguments.pick is None:
        count = COUNT if arguments.count is None else int(arguments.count)
        if count < 1:
            raise AnnotationError(f"--count is {count}, expected at least 1", field="count")
        return count
    for place, index in enumerate(arguments.pick):
        if not 0 <= index < 2**64 or index in arguments.pick[:place]:
            raise AnnotationError(
                f"--pick holds {index}, expected different numbers from 0 to 2**64 - 1; give each picture once",
                field="pick",
            )
    if arguments.count not in (None, len(arguments.pick)):
        raise AnnotationError(
            f"--count is {arguments.count} and --pick names {len(arguments.pick)} pictures; leave --count out",
            field="count",
        )
    return len(arguments.pick)


def run_sample(arguments: argparse.Namespace) -> str:
    """Write pictures with empty masks (every pixel 255) for a person to fill."""
    schema = name_classes(arguments.classes, arguments.keypoints)
    generator, chosen = _paint(arguments)
    unlabelled = AnnotatedSet.unlabelled(schema, paint(generator, chosen.ws), chosen.z, chosen.ws)
    write_annotations(unlabelled, arguments.out)
    return (
        f"{len(unlabelled)} pictures in {arguments.out}: draw on the .png files with LabelMe, CVAT or another "
        "program and give its files to import-annotations, or fill the .mask.png files with class ids"
        f"{_describe_scores(chosen)}"
    )


def _describe_scores(chosen: Chosen) -> str:
    if chosen.scores is None or chosen.pool_scores is None:
        return ""
    return (
        f"\nuncertainty of the pictures {', '.join(f'{score:.3f}' for score in chosen.scores.tolist())}; the median of "
        f"the {len(chosen.pool_scores)} candidates is {float(chosen.pool_scores.median()):.3f}"
    )


def run_label(arguments: argparse.Namespace) -> str:
    """Write pictures with the oracle's masks and keypoints."""
    generator, chosen = _paint(arguments)
    annotated = annotate(generator, load_segmenter(arguments.oracle), chosen.z, chosen.ws)
    write_annotations(annotated, arguments.out)
    shares = np.bincount(annotated.masks.ravel(), minlength=len(CLASS_NAMES)) / annotated.masks.size
    area = dict(zip(CLASS_NAMES, shares.round(5).tolist(), strict=True))
    return json.dumps({"num_pictures": len(annotated), "area": area})
