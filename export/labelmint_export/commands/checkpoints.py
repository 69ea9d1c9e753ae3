"""`inspect`: what a checkpoint holds. Also how every other command is given a generator."""

import argparse
import json
from pathlib import Path
from typing import cast

from labelmint_export.checkpoints.loading import AnyGenerator, inspect_checkpoint, load_generator

GENERATOR_HELP = "generator: .safetensors from train-gan, or a StyleGAN .pkl or .pt of another program"


def add_generator(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the arguments that name a generator; `read_generator` reads it."""
    parser.add_argument("--generator", type=Path, required=required, help=GENERATOR_HELP)
    parser.add_argument(
        "--mean-latent",
        type=Path,
        metavar="NPY",
        help="mean w of a generator whose file has none (DatasetGAN's StyleGAN1 and its avg_latent_stylegan1.npy); "
        "estimated if not given. Give the same to every command",
    )


def read_generator(arguments: argparse.Namespace) -> AnyGenerator:
    """Read the generator that the arguments name."""
    return load_generator(arguments.generator, mean_latent=arguments.mean_latent)


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("inspect", help="say what a checkpoint of any program holds, running nothing in it")
    parser.add_argument("path", type=Path, help=".pkl, .pt, .pth or .safetensors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_inspect)


def run_inspect(arguments: argparse.Namespace) -> str:
    """Read the file and describe it."""
    description = inspect_checkpoint(arguments.path)
    if arguments.json:
        return json.dumps(description)
    taps = cast(list[dict[str, object]], description.pop("taps", []))
    width = max(len(name) for name in description)
    lines = [f"{name:{width}}  {value}" for name, value in description.items()]
    lines += ["", "tap             channels  resolution   w"] if taps else []
    lines += [f"{tap['name']!s:15} {tap['channels']!s:>8} {tap['resolution']!s:>11} {tap['w']!s:>3}" for tap in taps]
    return "\n".join(lines)
