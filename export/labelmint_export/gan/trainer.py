"""The training loop."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from labelmint_export.gan.autoencoder import decode
from labelmint_export.gan.pictures import save_grid, to_range, to_uint8
from labelmint_export.gan.stages import Course
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
    """Paint the first pictures of the set by their codes, or what the encoder sees in them.

    uint8 [N, H, W, 3] to uint8 [2N, r, r, 3], the pictures first.
    """
    assert state.autoencoding is not None
    real = to_range(pictures, state.config.generator.resolution, state.path_length_mean.device)
    if state.codes is None:
        w, _ = state.autoencoding.encoder(real)
    else:
        w = state.codes.w[torch.arange(len(pictures)) % state.codes.count]
    return np.concatenate([to_uint8(real), to_uint8(decode(state.ema, w))])


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
    resolution = state.config.generator.resolution
    course = Course(state, pictures)
    started = time.monotonic()
    saved_at = logged_at = state.images_seen
    bar = tqdm(total=schedule.total_images, initial=state.images_seen, unit="img", mininterval=2.0, dynamic_ncols=True)
    while state.images_seen < schedule.total_images:
        course.step()
        bar.update(state.config.batch_size)
        seconds = time.monotonic() - started
        last = state.images_seen >= schedule.total_images or (
            schedule.max_seconds is not None and seconds > schedule.max_seconds
        )
        if last or state.images_seen - logged_at >= schedule.snapshot_images:
            random_state = torch.get_rng_state()
            record = {"images": float(state.images_before + state.images_seen), "resolution": float(resolution)}
            record |= course.averages.take() | {"ada_p": state.adaptive.p, "seconds": seconds}
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
