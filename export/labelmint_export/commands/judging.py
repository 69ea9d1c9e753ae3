"""`frechet`, `nearest` and `curve`: how good a generator is, and how it became so."""

import argparse
import dataclasses
import json
from pathlib import Path

from labelmint_export.errors import DatasetError
from labelmint_export.gan.curve import read_log, save_curve
from labelmint_export.gan.frechet import FeatureStatistics, frechet_distance, statistics_of
from labelmint_export.gan.nearest import NEIGHBOURS, save_nearest
from labelmint_export.gan.trainer import paint_many
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import load_generator
from labelmint_export.oracle.network import Segmenter, load_segmenter
from labelmint_export.pictures import open_pictures
from labelmint_export.placing import check_file_place


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    frechet = commands.add_parser("frechet", help="Frechet distance between a generator and a set of pictures")
    nearest = commands.add_parser("nearest", help="GAN pictures beside their nearest training pictures")
    for command in (frechet, nearest):
        command.add_argument("--generator", type=Path, required=True, help=".safetensors from train-gan")
        command.add_argument("--pictures", type=Path, required=True, help=".npy file from `render`")
        command.add_argument("--feature-network", type=Path, required=True, help=".safetensors from train-oracle")
    frechet.add_argument(
        "--count",
        type=int,
        default=2000,
        help="pictures of the generator, of the set, and of its other half (default 2000)",
    )
    nearest.add_argument("--count", type=int, default=2000, help="pictures of the set searched (default 2000)")
    nearest.add_argument("--out", type=Path, required=True, help="PNG to write")
    frechet.set_defaults(run=run_frechet)
    nearest.set_defaults(run=run_nearest)

    curve = commands.add_parser("curve", help="draw distance and losses over the pictures seen")
    curve.add_argument("--logs", type=Path, nargs="+", required=True, help="log.jsonl of each stage, in their order")
    curve.add_argument("--out", type=Path, required=True, help="PNG to write")
    curve.set_defaults(run=run_curve)


def at_least(minimum: int, arguments: argparse.Namespace, name: str) -> int:
    """Read an option that counts pictures.

    Raises:
        DatasetError: It is below the minimum.
    """
    count: int = getattr(arguments, name)
    if count < minimum:
        option = "--" + name.replace("_", "-")
        raise DatasetError(f"{option} is {count} pictures, expected at least {minimum}", field=name)
    return count


@dataclasses.dataclass(frozen=True, slots=True)
class FrechetEvaluation:
    """Measures a generator against fixed statistics."""

    network: Segmenter
    reference: FeatureStatistics
    count: int

    def __call__(self, generator: Generator) -> dict[str, float]:
        """Measure, for the log of the training."""
        painted = paint_many(generator, self.count)
        got = statistics_of(self.network, painted, generator.config.resolution)
        return {"frechet": frechet_distance(got, self.reference)}


def run_frechet(arguments: argparse.Namespace) -> str:
    """Measure the distance, beside that between two halves of the set."""
    wanted = at_least(2, arguments, "count")
    generator, network = load_generator(arguments.generator), load_segmenter(arguments.feature_network)
    pictures = open_pictures(arguments.pictures)
    side, count = generator.config.resolution, min(wanted, len(pictures) // 2)
    first = statistics_of(network, pictures[:count], side)
    second = statistics_of(network, pictures[count : 2 * count], side)
    got = statistics_of(network, paint_many(generator, count), side)
    return json.dumps(
        {
            "num_pictures": count,
            "frechet": frechet_distance(got, first),
            "frechet_between_halves_of_the_set": frechet_distance(second, first),
        }
    )


def run_nearest(arguments: argparse.Namespace) -> str:
    """Write the sheet."""
    check_file_place(arguments.out, "--out", ".png")
    generator, network = load_generator(arguments.generator), load_segmenter(arguments.feature_network)
    pictures = open_pictures(arguments.pictures)[: at_least(NEIGHBOURS, arguments, "count")]
    if len(pictures) < NEIGHBOURS:
        raise DatasetError(
            f"{arguments.pictures} holds {len(pictures)} pictures, expected at least {NEIGHBOURS}", field="pictures"
        )
    side = generator.config.resolution
    if pictures.shape[1] != side:
        raise DatasetError(
            f"pictures are {pictures.shape[1]} pixels wide, the generator's {side}; `render --resolution {side}` makes "
            "some that can be shown beside them",
            field="pictures",
        )
    save_nearest(network, paint_many(generator, 8), pictures, arguments.out)
    return f"wrote {arguments.out}"


def run_curve(arguments: argparse.Namespace) -> str:
    """Draw the logs."""
    check_file_place(arguments.out, "--out", ".png")
    logs = [read_log(path) for path in arguments.logs]
    save_curve(logs, arguments.out)
    return f"wrote {arguments.out}"
