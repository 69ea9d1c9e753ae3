"""`inspect`: what a checkpoint holds."""

import argparse
import json
from pathlib import Path
from typing import cast

from labelmint_export.checkpoints.loading import inspect_checkpoint

GENERATOR_HELP = "generator: .safetensors from train-gan, or a StyleGAN2 .pkl or .pt of another program"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser("inspect", help="say what a checkpoint of any program holds, running nothing in it")
    parser.add_argument("path", type=Path, help=".pkl, .pt or .safetensors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_inspect)


def run_inspect(arguments: argparse.Namespace) -> str:
    """Read the file and describe it."""
    description = inspect_checkpoint(arguments.path)
    if arguments.json:
        return json.dumps(description)
    taps = cast(list[dict[str, object]], description.pop("taps"))
    width = max(len(name) for name in description)
    lines = [f"{name:{width}}  {value}" for name, value in description.items()]
    lines += ["", "tap             channels  resolution"]
    lines += [f"{tap['name']!s:15} {tap['channels']!s:>8} {tap['resolution']!s:>11}" for tap in taps]
    return "\n".join(lines)
