"""`train-gan`, `frechet`, `nearest` and `curve`: the generator and how good it is."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from labelmint_export.commands.threads import add_threads, use_threads
from labelmint_export.errors import DatasetError, TrainingError
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.curve import read_log, save_curve
from labelmint_export.gan.frechet import FeatureStatistics, frechet_distance, statistics_of
from labelmint_export.gan.growing import load_networks, save_networks, start_from
from labelmint_export.gan.nearest import NEIGHBOURS, save_nearest
from labelmint_export.gan.pictures import open_pictures
from labelmint_export.gan.state import TrainState, load_state, make_state
from labelmint_export.gan.trainer import Evaluation, Schedule, paint_many, train
from labelmint_export.generator import Generator, GeneratorConfig
from labelmint_export.generator.snapshots import load_generator
from labelmint_export.oracle.network import Segmenter, load_segmenter
from labelmint_export.placing import check_file_place, check_folder_place
from labelmint_export.precision import fast_dtype

SHAPE_FIELDS = ("z_dim", "w_dim", "c_dim", "mapping_layers", "hidden_dim", "image_channels")
"""What a new generator may choose beside its widths."""
DEFAULT_CHANNELS = "4:128,8:128,16:128,32:96,64:64,128:32,256:16,512:16"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    parser = commands.add_parser(
        "train-gan", help="train a StyleGAN2 generator; goes on where a training in --out stopped"
    )
    parser.add_argument("--pictures", type=Path, required=True, help=".npy file from `render`")
    parser.add_argument("--out", type=Path, required=True, help="folder for snapshot, state, log and grids")
    parser.add_argument("--total-images", type=int, required=True, help="pictures to show at this resolution")
    parser.add_argument("--resolution", type=int, default=128, help="side of the pictures (default 128)")
    parser.add_argument(
        "--start-from", type=Path, help="folder of a training (or of keep-networks) of the same or a lower resolution"
    )
    parser.add_argument("--channels", default=DEFAULT_CHANNELS, help="generator's widths, RESOLUTION:WIDTH,...")
    parser.add_argument("--discriminator-channels", help="the discriminator's; the generator's if not given")
    parser.add_argument("--max-minutes", type=float, help="stop after this time; the same command goes on later")
    parser.add_argument("--feature-network", type=Path, help="oracle's .safetensors: measures the Frechet distance")
    parser.add_argument("--frechet-images", type=int, default=2000, help="pictures a distance (default 2000)")
    parser.add_argument("--snapshot-images", type=int, default=20_000, help="pictures between snapshots")
    parser.add_argument("--state-images", type=int, default=5_000, help="pictures between writes of the state")
    add_threads(parser)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where to train")
    for field in dataclasses.fields(TrainConfig):
        if field.name not in ("generator", "discriminator_channels"):
            kind = type(field.default)
            name = "--" + field.name.replace("_", "-")
            usual = "bfloat16 where the device has instructions for it, else float32"
            default = usual if field.name == "compute_dtype" else field.default
            parser.add_argument(name, type=kind, help=f"default {default}")
    for field in dataclasses.fields(GeneratorConfig):
        if field.name in SHAPE_FIELDS:
            parser.add_argument("--" + field.name.replace("_", "-"), type=int, help=f"default {field.default}")
    parser.set_defaults(run=run_train)

    frechet = commands.add_parser("frechet", help="Frechet distance between a generator and a set of pictures")
    nearest = commands.add_parser("nearest", help="GAN pictures beside their nearest training pictures")
    for command in (frechet, nearest):
        command.add_argument("--generator", type=Path, required=True, help=".safetensors from train-gan")
        command.add_argument("--pictures", type=Path, required=True, help=".npy file from `render`")
        command.add_argument("--feature-network", type=Path, required=True, help=".safetensors from train-oracle")
        command.add_argument("--count", type=int, default=2000, help="pictures compared (default 2000)")
    nearest.add_argument("--out", type=Path, required=True, help="PNG to write")
    frechet.set_defaults(run=run_frechet)
    nearest.set_defaults(run=run_nearest)

    keep = commands.add_parser(
        "keep-networks", help="keep a training's networks, a tenth of its state, to go on one day"
    )
    keep.add_argument("--training", type=Path, required=True, help="--out of train-gan")
    keep.add_argument("--out", type=Path, required=True, help="folder to write to")
    keep.set_defaults(run=run_keep)

    curve = commands.add_parser("curve", help="draw distance and losses over the pictures seen")
    curve.add_argument("--logs", type=Path, nargs="+", required=True, help="log.jsonl of each stage, in their order")
    curve.add_argument("--out", type=Path, required=True, help="PNG to write")
    curve.set_defaults(run=run_curve)


def parse_channels(text: str, resolution: int, field: str) -> dict[int, int]:
    """Read RESOLUTION:WIDTH,... and keep what a resolution needs.

    Raises:
        TrainingError: The text is malformed.
    """
    try:
        pairs = [entry.split(":") for entry in text.split(",")]
        return {int(r): int(width) for r, width in pairs if int(r) <= resolution}
    except ValueError as error:
        raise TrainingError(
            f"{field} is {text!r}, expected RESOLUTION:WIDTH,... such as 4:128,8:128", field=field
        ) from error


def _config_of(arguments: argparse.Namespace, device: torch.device) -> TrainConfig:
    channels = parse_channels(arguments.channels, arguments.resolution, "channels")
    of_discriminator = arguments.discriminator_channels
    given = {"compute_dtype": str(fast_dtype(device)).removeprefix("torch.")} | {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(TrainConfig)
        if getattr(arguments, field.name, None) is not None and field.name != "discriminator_channels"
    }
    shape = {name: getattr(arguments, name) for name in SHAPE_FIELDS if getattr(arguments, name) is not None}
    return TrainConfig(
        generator=GeneratorConfig(resolution=arguments.resolution, channels=channels, **shape),
        discriminator_channels=(
            parse_channels(of_discriminator, arguments.resolution, "discriminator_channels")
            if of_discriminator
            else channels
        ),
        **given,
    )


def _device_of(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device is cuda, but torch sees no GPU here; use cpu or another build of torch", field="device"
        )
    return torch.device(name)


def _start_state(arguments: argparse.Namespace, device: torch.device) -> TrainState:
    if (arguments.out / "state.json").exists():
        state = load_state(arguments.out, device)
        tqdm.write(f"going on after {state.images_seen} pictures with the settings in {arguments.out}", file=sys.stderr)
        return state
    config = _config_of(arguments, device)
    if arguments.start_from is not None:
        return start_from(arguments.start_from, config, device)
    return make_state(config, device)


def _check_pictures(pictures: npt.NDArray[np.uint8], config: GeneratorConfig) -> None:
    """Refuse, before the first step, pictures that this generator cannot learn.

    Raises:
        DatasetError: Their side is no multiple of the resolution.
        TrainingError: The generator is grey; the pictures have colours.
    """
    side = pictures.shape[1]
    if side % config.resolution:
        raise DatasetError(
            f"pictures are {side} pixels wide, expected a multiple of {config.resolution}", field="pictures"
        )
    if config.image_channels != 3:
        raise TrainingError(
            f"image_channels is {config.image_channels}, expected 3; the pictures of `render` have colours",
            field="image_channels",
        )


def run_train(arguments: argparse.Namespace) -> str:
    """Train until the pictures or the time are used up."""
    check_folder_place(arguments.out, "--out", filled=True)
    use_threads(arguments)
    pictures = open_pictures(arguments.pictures)
    device = _device_of(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    state = _start_state(arguments, device)
    _check_pictures(pictures, state.config.generator)
    evaluate: Evaluation | None = None
    if arguments.feature_network is not None:
        network = load_segmenter(arguments.feature_network)
        count = min(arguments.frechet_images, len(pictures))
        reference = statistics_of(network, pictures[:count], state.config.generator.resolution)
        evaluate = _FrechetEvaluation(network, reference, count)
    schedule = Schedule(
        total_images=arguments.total_images,
        snapshot_images=arguments.snapshot_images,
        state_images=arguments.state_images,
        max_seconds=None if arguments.max_minutes is None else arguments.max_minutes * 60,
    )
    train(state, pictures, schedule, arguments.out, evaluate)
    if not state.mapping_fitted:
        return f"{state.images_seen} pictures seen; {arguments.out} holds an autoencoder, a generator comes after it"
    return f"{state.images_seen} pictures seen; wrote {arguments.out / 'generator.safetensors'}"


@dataclasses.dataclass(frozen=True, slots=True)
class _FrechetEvaluation:
    """Measures a generator against fixed statistics."""

    network: Segmenter
    reference: FeatureStatistics
    count: int

    def __call__(self, generator: Generator) -> dict[str, float]:
        painted = paint_many(generator, self.count)
        got = statistics_of(self.network, painted, generator.config.resolution)
        return {"frechet": frechet_distance(got, self.reference)}


def run_frechet(arguments: argparse.Namespace) -> str:
    """Measure the distance, beside that between two halves of the set."""
    generator, network = load_generator(arguments.generator), load_segmenter(arguments.feature_network)
    pictures = open_pictures(arguments.pictures)
    side, count = generator.config.resolution, min(arguments.count, len(pictures) // 2)
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
    pictures = open_pictures(arguments.pictures)[: max(arguments.count, 0)]
    if len(pictures) < NEIGHBOURS:
        raise DatasetError(f"count is {len(pictures)} pictures, expected at least {NEIGHBOURS}", field="count")
    side = generator.config.resolution
    if pictures.shape[1] != side:
        raise DatasetError(
            f"pictures are {pictures.shape[1]} pixels wide, the generator's {side}; `render --resolution {side}` makes "
            "some that can be shown beside them",
            field="pictures",
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_nearest(network, paint_many(generator, 8), pictures, arguments.out)
    return f"wrote {arguments.out}"


def run_keep(arguments: argparse.Namespace) -> str:
    """Write the networks of a training."""
    check_folder_place(arguments.out, "--out", filled=True)
    networks = load_networks(arguments.training)
    save_networks(networks, arguments.out)
    return f"wrote {arguments.out}: the networks after {networks.images} pictures"


def run_curve(arguments: argparse.Namespace) -> str:
    """Draw the logs."""
    check_file_place(arguments.out, "--out", ".png")
    logs = [read_log(path) for path in arguments.logs]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_curve(logs, arguments.out)
    return f"wrote {arguments.out}"
