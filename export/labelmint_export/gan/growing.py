"""Starting a training from the networks of another: of a lower resolution, or of the same one without its optimisers.

`networks.safetensors` and `networks.json` hold what is worth keeping of a training that may go on one day: generator,
averaged generator and discriminator in float16. A tenth of the resumable state, and not bit for bit what was. Before a
discriminator has judged anything they hold the averaged generator, the encoder and the codes: nothing else has learned.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from labelmint_export.errors import CheckpointError
from labelmint_export.gan.autoencoder import Encoder
from labelmint_export.gan.codes import make_codes
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.discriminator import Discriminator, PictureTrunk
from labelmint_export.gan.state import TrainState, config_from_json, config_to_json, load_state, make_state
from labelmint_export.generator import Generator
from labelmint_export.stored import load_weights, read_json, read_tensors, write_json, write_tensors

FORMAT = "labelmint-gan-networks"
FORMAT_VERSION = 1
NETWORKS = ("generator", "ema", "discriminator", "encoder")
NETWORKS_OF_AUTOENCODER = ("ema", "encoder")
CODES = "codes"


@dataclass(frozen=True, slots=True)
class Networks:
    """What another training starts from."""

    config: TrainConfig
    generator: Generator
    ema: Generator
    discriminator: Discriminator
    encoder: Encoder | None
    """None in a training without reconstructions."""
    path_length_mean: float
    images: int
    """Pictures seen so far, at all resolutions."""
    mapping_fitted: bool
    """False while synthesis knows w from an encoder or from codes alone."""
    adversarial: bool
    """Whether the discriminator has begun to judge."""
    codes: torch.Tensor | None = None
    """float32 [P, D], the w of the first pictures of the set; not kept once a discriminator moves what they mean."""


def networks_of(state: TrainState) -> Networks:
    """Take the networks out of a state."""
    return Networks(
        config=state.config,
        generator=state.generator,
        ema=state.ema,
        discriminator=state.discriminator,
        encoder=None if state.autoencoding is None else state.autoencoding.encoder,
        path_length_mean=float(state.path_length_mean),
        images=state.images_before + state.images_seen,
        mapping_fitted=state.mapping_fitted,
        adversarial=state.has_judged,
        codes=None if state.codes is None else state.codes.w,
    )


def save_networks(networks: Networks, folder: Path) -> None:
    """Write the networks of a training; see the module.

    Args:
        networks: What to write.
        folder: Where to; made if missing.
    """
    tensors = {
        f"{name}.{key}": tensor.half()
        for name in _kept(networks.adversarial)
        if getattr(networks, name) is not None
        for key, tensor in getattr(networks, name).state_dict().items()
    }
    if networks.codes is not None and not networks.adversarial:
        tensors[CODES] = networks.codes.half()
    write_tensors(folder / "networks.safetensors", tensors)
    write_json(
        folder / "networks.json",
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "config": config_to_json(networks.config),
            "images": networks.images,
            "mapping_fitted": networks.mapping_fitted,
            "adversarial": networks.adversarial,
            "path_length_mean": networks.path_length_mean,
        },
    )


def _kept(adversarial: bool) -> tuple[str, ...]:
    return NETWORKS if adversarial else NETWORKS_OF_AUTOENCODER


def load_networks(folder: Path) -> Networks:
    """Read the networks of a training from its resumable state, or from what `save_networks` left.

    Raises:
        CheckpointError: A file is missing or malformed.
    """
    record_path, path = folder / "networks.json", folder / "networks.safetensors"
    if not record_path.exists():
        return networks_of(load_state(folder, torch.device("cpu")))
    record = read_json(record_path)
    if record.get("format") != FORMAT or record.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{record_path} holds no networks of this version; start the training anew", field="format"
        )
    config = config_from_json(record.get("config"), record_path)
    try:
        fitted = bool(record["mapping_fitted"])
        adversarial = bool(record.get("adversarial", fitted))  # earlier files knew no codes
        length, images = float(record["path_length_mean"]), int(record["images"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{record_path} lacks a number ({error!r}); start the training anew", field="images"
        ) from error
    tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    made = networks_of(make_state(config, torch.device("cpu")))
    for name in _kept(adversarial):
        start = f"{name}."
        part = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
        if getattr(made, name) is not None:
            load_weights(getattr(made, name), part, path)
    if not adversarial:
        made.generator.load_state_dict(made.ema.state_dict())
        if made.encoder is not None:
            made.discriminator.blocks.load_state_dict(made.encoder.blocks.state_dict())
    return dataclasses.replace(
        made,
        path_length_mean=length,
        images=images,
        mapping_fitted=fitted,
        adversarial=adversarial,
        codes=tensors.get(CODES),
    )


def start_from(folder: Path, config: TrainConfig, device: torch.device) -> TrainState:
    """Start a training from the networks of another one, of the same or a lower resolution.

    Blocks that are new begin as nothing: their colours and their contribution to the discriminator are zero, so that
    step 0 paints the old pictures, upsampled, and judges them as before (the idea of Karras et al. 2018, without their
    fading). Codes go along if the stage of codes begins at once; it must see the same pictures, and those of further
    pictures begin as what the encoder says.

    Args:
        folder: The other training, or what was kept of it.
        config: Settings of the new one; widths at the old resolutions must agree, and those of the mapping if it has
            learned something.
        device: Where it runs.

    Returns:
        State of step 0.

    Raises:
        CheckpointError: The old networks do not fit inside the new ones.
    """
    old = load_networks(folder)
    old_top = old.config.generator.resolution
    if old_top > config.generator.resolution:
        raise CheckpointError(
            f"{folder} has resolution {old_top}, expected at most {config.generator.resolution}", field="resolution"
        )
    state = make_state(config, device)
    if old_top < config.generator.resolution:
        _silence_new_blocks(state, old)
    # A mapping that has learned nothing need not fit: an autoencoder leaves its shape open.
    unlearned = "" if old.mapping_fitted else "mapping.layers."
    _copy_into(state.generator, old.generator, folder, unlearned)
    _copy_into(state.discriminator, old.discriminator, folder)
    state.ema.load_state_dict(state.generator.state_dict())
    _copy_into(state.ema, old.ema, folder, unlearned)
    if state.autoencoding is not None and old.encoder is not None:
        _copy_into(state.autoencoding.encoder, old.encoder, folder)
    if config.code_images and not config.autoencoder_images and old.codes is not None:
        state.codes = make_codes(old.codes.to(device), state.generator, config)
    state.path_length_mean.fill_(old.path_length_mean)
    state.images_before = old.images
    state.mapping_fitted = old.mapping_fitted and config.unfitted_images == 0
    return state


@torch.no_grad()
def _silence_new_blocks(state: TrainState, old: Networks) -> None:
    old_top = old.config.generator.resolution
    new = [r for r in state.config.generator.block_resolutions if r > old_top]
    for r in new:
        torgb = state.generator.synthesis.block(r).torgb
        assert torgb is not None  # TrainConfig takes the skip architecture alone
        torgb.conv.weight.zero_()
    _silence_trunk(state.discriminator, old.discriminator, new)
    if state.autoencoding is not None and old.encoder is not None:
        _silence_trunk(state.autoencoding.encoder, old.encoder, new)


def _silence_trunk(trunk: PictureTrunk, old: PictureTrunk, new: list[int]) -> None:
    for r in new:
        trunk.block(r).conv1.weight.zero_()
        trunk.block(r).skip.weight.zero_()
    # The old top block had no features from above, which halves the variance that fromrgb must give.
    for parameter in old.block(old.config.resolution).fromrgb.parameters():
        parameter.mul_(math.sqrt(2.0))


def _copy_into(target: torch.nn.Module, source: torch.nn.Module, folder: Path, left_out: str = "") -> None:
    """Copy all weights but those whose names begin with `left_out`, if it is not empty."""
    tensors = target.state_dict()
    for name, tensor in source.state_dict().items():
        if left_out and name.startswith(left_out):
            continue
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise CheckpointError(f"{name} of {folder} does not fit the new settings", field=name)
        tensors[name] = tensor
    target.load_state_dict(tensors)
