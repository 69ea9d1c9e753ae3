"""The training loop."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from labelmint_export.errors import TrainingError
from labelmint_export.gan.autoencoder import reconstruction_step
from labelmint_export.gan.losses import LossContext, discriminator_step, generator_step, path_length_step, r1_step
from labelmint_export.gan.pictures import save_grid, to_range, to_uint8
from labelmint_export.gan.prior import PriorFit, encode_set, fit_mapping
from labelmint_export.gan.state import TrainState, save_state
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import save_generator

GRID_COLUMNS = 10
GRID_ROWS = 6

Evaluation = Callable[[Generator], dict[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """When a training writes, measures and ends. None of it changes the numbers."""

    total_images: int
    """Pictures to have seen at the end."""
    snapshot_images: int = 20_000
    """Pictures between two snapshots, grids and log lines."""
    state_images: int = 5_000
    """Pictures between two writes of the resumable state."""
    max_seconds: float | None = None
    """Stop, with the state written, after this time."""


@dataclass(slots=True)
class _Averages:
    """Means since the last log line."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        means = {name: self.sums[name] / self.counts[name] for name in self.sums}
        self.sums, self.counts = {}, {}
        return means


def picture_order(seed: int, count: int, start: int) -> Iterator[int]:
    """Say which picture comes next: every epoch is a permutation that follows from the seed and its number.

    Args:
        seed: Of the training.
        count: Pictures of the set.
        start: Pictures already seen.

    Yields:
        Indices in [0, count).
    """
    epoch, offset = divmod(start, count)
    while True:
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
        for index in order[offset:]:
            yield int(index)
        epoch, offset = epoch + 1, 0


def _train_step(state: TrainState, real: torch.Tensor, averages: _Averages) -> None:
    config = state.config
    if state.images_seen < config.autoencoder_images:
        _reconstruct(state, real, 1.0, averages)
    else:
        _adversarial_step(state, real, averages)
        if config.reconstruction_rate > 0 and state.step % config.reconstruction_interval == 0:
            _reconstruct(state, real, config.reconstruction_rate, averages)
    state.step += 1
    _average_generator(state)


def _begin_adversarial(state: TrainState, pictures: npt.NDArray[np.uint8]) -> PriorFit:
    """Turn an autoencoder into a GAN: the mapping learns where the pictures are, the discriminator what to look at."""
    config = state.config
    if state.autoencoding is None:
        raise TrainingError(
            "reconstruction_rate is 0, expected more than 0, or autoencoder_images: the networks to start from have "
            "no mapping yet, and only an encoder can teach it",
            field="reconstruction_rate",
        )
    encoder, mapping = state.autoencoding.encoder, state.generator.mapping
    dtype = getattr(torch, config.compute_dtype)
    posterior = encode_set(encoder, pictures, mapping.w_avg.device, dtype)
    fit = fit_mapping(mapping, posterior, steps=config.prior_steps, compute_dtype=dtype)
    state.ema.mapping.load_state_dict(mapping.state_dict())
    state.discriminator.blocks.load_state_dict(encoder.blocks.state_dict())
    state.mapping_fitted = True
    return fit


def _reconstruct(state: TrainState, real: torch.Tensor, rate: float, averages: _Averages) -> None:
    assert state.autoencoding is not None
    state.autoencoding.optimizer.zero_grad(set_to_none=True)
    reconstruction = reconstruction_step(
        state.generator,
        state.autoencoding.encoder,
        real,
        kl_weight=state.config.kl_weight,
        w_avg_beta=state.config.w_avg_beta,
        compute_dtype=getattr(torch, state.config.compute_dtype),
    )
    averages.add("reconstruction", reconstruction.distance)
    averages.add("divergence", reconstruction.divergence)
    for group in state.autoencoding.optimizer.param_groups:
        group["lr"] = rate * state.config.learning_rate
    state.autoencoding.optimizer.step()


def _adversarial_step(state: TrainState, real: torch.Tensor, averages: _Averages) -> None:
    config = state.config
    device = real.device
    context = LossContext(
        generator=state.generator,
        discriminator=state.discriminator,
        compute_dtype=getattr(torch, config.compute_dtype),
        augment_p=state.adaptive.p,
        style_mixing=config.style_mixing,
    )

    def draw(count: int) -> torch.Tensor:
        return torch.randn([count, config.generator.z_dim], device=device)

    state.discriminator.requires_grad_(False)
    state.generator_optimizer.zero_grad(set_to_none=True)
    loss, fake = generator_step(context, draw(config.batch_size), None, config.w_avg_beta)
    averages.add("generator_loss", loss)
    state.generator_optimizer.step()
    if config.path_length_weight > 0 and state.step % config.path_length_interval == 0:
        state.generator_optimizer.zero_grad(set_to_none=True)
        z = draw(max(1, config.batch_size // config.path_length_shrink))
        length = path_length_step(
            context, z, None, state.path_length_mean, config.path_length_weight, config.path_length_interval
        )
        averages.add("path_length", length)
        state.generator_optimizer.step()
    state.discriminator.requires_grad_(True)

    state.discriminator_optimizer.zero_grad(set_to_none=True)
    loss, real_logits = discriminator_step(context, real, fake, None)
    averages.add("discriminator_loss", loss)
    state.adaptive.observe(real_logits)
    state.discriminator_optimizer.step()
    if config.r1_gamma > 0 and state.step % config.r1_interval == 0:
        state.discriminator_optimizer.zero_grad(set_to_none=True)
        averages.add("r1", r1_step(context, real, None, config.r1_gamma, config.r1_interval))
        state.discriminator_optimizer.step()

    if (state.step + 1) % config.ada_interval == 0:
        averages.add("sign_real", state.adaptive.update())


@torch.no_grad()
def _average_generator(state: TrainState) -> None:
    seen = state.images_before + state.images_seen
    half_life = min(state.config.ema_images, max(seen * state.config.ema_rampup, 1e-8))
    decay = 0.5 ** (state.config.batch_size / half_life)
    averaged: list[torch.Tensor] = list(state.ema.parameters())
    current: list[torch.Tensor] = list(state.generator.parameters())
    torch._foreach_lerp_(averaged, current, 1.0 - decay)
    for target, source in zip(state.ema.buffers(), state.generator.buffers(), strict=True):
        target.copy_(source)


@torch.no_grad()
def paint_many(generator: Generator, count: int, truncation_psi: float = 1.0) -> npt.NDArray[np.uint8]:
    """Paint the first latents of a fixed sequence: uint8 [count, H, W, 3]."""
    config, device = generator.config, generator.mapping.w_avg.device
    random = np.random.Generator(np.random.Philox(key=[0, 1]))
    z = torch.from_numpy(random.standard_normal((count, config.z_dim))).float().to(device)
    c = None
    if config.c_dim:
        c = torch.nn.functional.one_hot(torch.arange(count) % config.c_dim, config.c_dim).float().to(device)
    ws = generator.mapping(z, c, truncation_psi)
    return np.concatenate([to_uint8(generator.synthesis(part).image) for part in ws.split(20)])


@torch.no_grad()
def reconstruct_many(state: TrainState, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Paint what the encoder sees in pictures: uint8 [N, H, W, 3] to uint8 [2N, r, r, 3], the pictures first."""
    assert state.autoencoding is not None
    real = to_range(pictures, state.config.generator.resolution, state.path_length_mean.device)
    w, _ = state.autoencoding.encoder(real)
    ws = w[:, None, :].expand(-1, state.config.generator.num_ws, -1)
    return np.concatenate([to_uint8(real), to_uint8(state.ema.synthesis(ws, "none").image)])


def _write_snapshot(state: TrainState, pictures: npt.NDArray[np.uint8], folder: Path, record: dict[str, float]) -> None:
    seen = state.images_before + state.images_seen
    count = GRID_COLUMNS * GRID_ROWS
    if state.mapping_fitted:
        grid = paint_many(state.ema, count)
        provenance: dict[str, object] = {"images_seen": seen, "seed": state.config.seed, **record}
        save_generator(state.ema, folder / "generator.safetensors", provenance)
    else:  # an autoencoder is no generator yet: its mapping has learned nothing
        grid = reconstruct_many(state, pictures[np.arange(count // 2) % len(pictures)])
    save_grid(grid, GRID_COLUMNS, folder / f"grid-{seen:08d}.png")
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def train(
    state: TrainState,
    pictures: npt.NDArray[np.uint8],
    schedule: Schedule,
    folder: Path,
    evaluate: Evaluation | None = None,
) -> None:
    """Train until the schedule ends; the folder then holds the snapshot, the log, the grids and the resumable state.

    While the training is an autoencoder alone there is no snapshot, and the grids show reconstructions.

    Args:
        state: Fresh, grown or loaded; changed in place.
        pictures: uint8 [N, H, W, 3].
        schedule: When to write and to end.
        folder: Where to write; exists.
        evaluate: Measures of the averaged generator for the log, such as the Frechet distance.
    """
    device = state.path_length_mean.device
    batch, resolution = state.config.batch_size, state.config.generator.resolution
    order = picture_order(state.config.seed, len(pictures), state.images_before + state.images_seen)
    averages = _Averages()
    started = time.monotonic()
    saved_at = logged_at = state.images_seen
    bar = tqdm(total=schedule.total_images, initial=state.images_seen, unit="img", mininterval=2.0, dynamic_ncols=True)
    while state.images_seen < schedule.total_images:
        if not state.mapping_fitted and state.images_seen >= state.config.autoencoder_images:
            fit = _begin_adversarial(state, pictures)
            averages.add("flow_loss", fit.flow_loss)
            averages.add("mapping_error", fit.mapping_error)
        indices = [next(order) for _ in range(batch)]
        _train_step(state, to_range(pictures[indices], resolution, device), averages)
        bar.update(batch)
        seconds = time.monotonic() - started
        last = state.images_seen >= schedule.total_images or (
            schedule.max_seconds is not None and seconds > schedule.max_seconds
        )
        if last or state.images_seen - logged_at >= schedule.snapshot_images:
            random_state = torch.get_rng_state()
            record = {"images": float(state.images_before + state.images_seen), "resolution": float(resolution)}
            record |= averages.take() | {"ada_p": state.adaptive.p, "seconds": seconds}
            if evaluate is not None and state.mapping_fitted:
                record |= evaluate(state.ema)
            torch.set_rng_state(random_state)  # measuring must not change what comes after
            _write_snapshot(state, pictures, folder, record)
            bar.set_postfix({k: f"{record[k]:.3g}" for k in ("frechet", "ada_p") if k in record})
            logged_at = state.images_seen
        if last or state.images_seen - saved_at >= schedule.state_images:
            save_state(state, folder)
            saved_at = state.images_seen
        if last:
            break
    bar.close()
