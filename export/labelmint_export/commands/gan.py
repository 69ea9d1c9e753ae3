"""`train-gan` and `keep-networks`: the generator's training."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from labelmint_export.commands.judging import FrechetEvaluation, at_least
from labelmint_export.commands.settings import explain
from labelmint_export.commands.threads import add_threads, use_threads
from labelmint_export.devices import DEVICES, choose_device
from labelmint_export.errors import TrainingError
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.frechet import statistics_of
from labelmint_export.gan.growing import load_networks, save_networks, start_from
from labelmint_export.gan.state import FILE_NAME, TrainState, load_state, make_state
from labelmint_export.gan.trainer import Evaluation, Schedule, train
from labelmint_export.generator import GeneratorConfig
from labelmint_export.oracle.network import load_segmenter
from labelmint_export.pictures import check_side, open_pictures
from labelmint_export.placing import check_folder_place
from labelmint_export.precision import fast_dtype

SHAPE_FIELDS = ("z_dim", "w_dim", "mapping_layers", "hidden_dim")
"""What a new generator may choose beside its widths."""
TRAIN_FIELDS = tuple(
    f.name for f in dataclasses.fields(TrainConfig) if f.name not in ("generator", "discriminator_channels")
)
DEFAULT_RESOLUTION = 128
DEFAULT_CHANNELS = "4:128,8:128,16:128,32:96,64:64,128:32,256:16,512:16"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    _add_training(commands)
    _add_keeping(commands)


def _add_training(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "train-gan", help="train a StyleGAN2 generator; goes on where a training in --out stopped"
    )
    parser.add_argument("--pictures", type=Path, required=True, help=".npy file from `render`")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for snapshot, state, log and grids. If a training has its state there it goes on, bit for bit, "
        "with its own pictures; its settings need not be given again, and others are refused",
    )
    parser.add_argument("--total-images", type=int, required=True, help=explain(Schedule, "total_images"))
    parser.add_argument("--max-minutes", type=float, help="stop after this time; the same command goes on later")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="folder of a training (or of keep-networks) of the same or a lower resolution, whose networks this one "
        "begins with, with other settings if need be",
    )
    for name in ("snapshot_images", "state_images"):
        default = getattr(Schedule(total_images=1), name)
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default, help=explain(Schedule, name))
    parser.add_argument("--feature-network", type=Path, help="oracle's .safetensors: measures the Frechet distance")
    parser.add_argument(
        "--frechet-images", type=int, default=2000, help="pictures a distance, at least 2 (default %(default)s)"
    )
    add_threads(parser)
    parser.add_argument("--device", default="auto", choices=DEVICES, help="where to train (default auto)")

    shape = parser.add_argument_group("shape of the networks")
    shape.add_argument("--resolution", type=int, help=f"side of the pictures, pixels (default {DEFAULT_RESOLUTION})")
    shape.add_argument(
        "--channels",
        help="feature maps of the generator at each resolution, RESOLUTION:WIDTH,...; those above --resolution do not "
        f"count (default {DEFAULT_CHANNELS})",
    )
    shape.add_argument("--discriminator-channels", help="likewise, the discriminator's (default: the generator's)")
    for name in SHAPE_FIELDS:
        usual = "w_dim" if name == "hidden_dim" else ""
        shape.add_argument("--" + name.replace("_", "-"), type=int, help=explain(GeneratorConfig, name, usual))

    settings = parser.add_argument_group("settings of the training")
    for field in dataclasses.fields(TrainConfig):
        if field.name in TRAIN_FIELDS:
            usual = "bfloat16 where the device has instructions for it, else float32"
            text = explain(TrainConfig, field.name, usual if field.name == "compute_dtype" else "")
            settings.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), help=text)
    parser.set_defaults(run=run_train)


def _add_keeping(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    keep = commands.add_parser(
        "keep-networks", help="keep a training's networks, a tenth of its state, to go on one day"
    )
    keep.add_argument("--training", type=Path, required=True, help="--out of train-gan")
    keep.add_argument("--out", type=Path, required=True, help="folder to write to")
    keep.set_defaults(run=run_keep)


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


def _given(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:  # Any: values of every type
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def _config_of(arguments: argparse.Namespace, device: torch.device) -> TrainConfig:
    resolution = DEFAULT_RESOLUTION if arguments.resolution is None else arguments.resolution
    channels = parse_channels(arguments.channels or DEFAULT_CHANNELS, resolution, "channels")
    of_discriminator = arguments.discriminator_channels
    fast = str(fast_dtype(device)).removeprefix("torch.")
    return TrainConfig(
        generator=GeneratorConfig(resolution=resolution, channels=channels, **_given(arguments, SHAPE_FIELDS)),
        discriminator_channels=(
            parse_channels(of_discriminator, resolution, "discriminator_channels") if of_discriminator else channels
        ),
        **{"compute_dtype": fast} | _given(arguments, TRAIN_FIELDS),
    )


def _check_settings(arguments: argparse.Namespace, config: TrainConfig) -> None:
    """Refuse settings that are not those of the training that goes on.

    Raises:
        TrainingError: One was given and is another.
    """
    shape = config.generator
    wanted = _given(arguments, ("resolution", *SHAPE_FIELDS, *TRAIN_FIELDS))
    for field in ("channels", "discriminator_channels"):
        if getattr(arguments, field) is not None:
            wanted[field] = parse_channels(getattr(arguments, field), shape.resolution, field)
    for name, value in wanted.items():
        known = getattr(shape if hasattr(shape, name) else config, name)
        if value != known:
            raise TrainingError(
                f"{name} is {value}, but the training in {arguments.out} has {known}; leave it out to go on, or begin "
                f"another training with --start-from {arguments.out} and another --out",
                field=name,
            )


def _start_state(arguments: argparse.Namespace, device: torch.device) -> TrainState:
    if (arguments.out / FILE_NAME).exists():
        state = load_state(arguments.out, device)
        _check_settings(arguments, state.config)
        tqdm.write(f"going on after {state.images_seen} pictures with the settings in {arguments.out}", file=sys.stderr)
        return state
    config = _config_of(arguments, device)
    if arguments.start_from is not None:
        return start_from(arguments.start_from, config, device)
    return make_state(config, device)


def run_train(arguments: argparse.Namespace) -> str:
    """Train until the pictures or the time are used up."""
    check_folder_place(arguments.out, "--out", filled=True)
    use_threads(arguments)
    schedule = Schedule(
        total_images=arguments.total_images,
        snapshot_images=arguments.snapshot_images,
        state_images=arguments.state_images,
        max_seconds=None if arguments.max_minutes is None else arguments.max_minutes * 60,
    )
    pictures = open_pictures(arguments.pictures)
    device = choose_device(arguments.device)
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    arguments.out.mkdir(parents=True, exist_ok=True)
    state = _start_state(arguments, device)
    check_side(pictures.shape[1], state.config.generator.resolution)
    evaluate: Evaluation | None = None
    if arguments.feature_network is not None:
        network = load_segmenter(arguments.feature_network).to(device)
        count = min(at_least(2, arguments, "frechet_images"), len(pictures))
        reference = statistics_of(network, pictures[:count], state.config.generator.resolution)
        evaluate = FrechetEvaluation(network, reference, count)
    train(state, pictures, schedule, arguments.out, evaluate)
    if not state.mapping_fitted:
        return f"{state.images_seen} pictures seen; {arguments.out} holds an autoencoder, a generator comes after it"
    return f"{state.images_seen} pictures seen; wrote {arguments.out / 'generator.safetensors'}"


def run_keep(arguments: argparse.Namespace) -> str:
    """Write the networks of a training."""
    check_folder_place(arguments.out, "--out", filled=True)
    networks = load_networks(arguments.training)
    save_networks(networks, arguments.out)
    return f"wrote {arguments.out}: the networks after {networks.images} pictures"
