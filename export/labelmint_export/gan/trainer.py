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

from labelmint_export.errors import DatasetError
from labelmint_export.gan.autoencoder import decode
from labelmint_export.gan.curve import trim_log
from labelmint_export.gan.stages import Course, check_finite
from labelmint_export.gan.state import TrainState, save_state
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import save_generator
from labelmint_export.pictures import fingerprint_of, save_grid, to_range, to_uint8
from labelmint_export.ranges import require_at_least

LOG_NAME = "log.jsonl"
GRID_COLUMNS = 10
GRID_ROWS = 6

Evaluation = Callable[[Generator], dict[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """When a training writes, measures and ends. None of it changes the numbers."""

    total_images: int
    """Pictures to have seen at this resolution when the training ends, those before an interruption included."""
    snapshot_images: int = 20_000
    """Pictures between two snapshots, grids and log lines, at least 1."""
    state_images: int = 5_000
    """Pictures between two writes of the resumable state, at least 1: what an interruption costs at most. A GPU that
    sees thousands a second writes too often unless it is given more."""
    max_seconds: float | None = None
    """Stop, with the state written, after this time."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            TrainingError: A field is out of range.
        """
        require_at_least(self, 1, "total_images", "snapshot_images", "state_images")
        if self.max_seconds is not None:
            require_at_least(self, 0, "max_seconds")


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
def reconstruct_many(state: TrainState, pictures: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """Paint the first pictures of the set by their codes, or what the encoder sees in them.

    uint8 [N, H, W, 3] to uint8 [2 * count, r, r, 3], the pictures first; they begin anew where there are fewer.
    """
    assert state.autoencoding is not None
    known = len(pictures) if state.codes is None else state.codes.count
    indices = np.arange(count) % known
    real = to_range(pictures[indices], state.config.generator.resolution, state.path_length_mean.device)
    w = state.autoencoding.encoder(real)[0] if state.codes is None else state.codes.w[torch.from_numpy(indices)]
    return np.concatenate([to_uint8(real), to_uint8(decode(state.ema, w))])


def _write_snapshot(state: TrainState, pictures: npt.NDArray[np.uint8], folder: Path, record: dict[str, float]) -> None:
    seen = state.images_before + state.images_seen
    count = GRID_COLUMNS * GRID_ROWS
    if state.mapping_fitted:
        grid = paint_many(state.ema, count)
        provenance: dict[str, object] = {"images_seen": seen, "seed": state.config.seed, **record}
        save_generator(state.ema, folder / "generator.safetensors", provenance)
    else:  # an autoencoder is no generator yet: its mapping has learned nothing
        grid = reconstruct_many(state, pictures, count // 2)
    save_grid(grid, GRID_COLUMNS, folder / f"grid-{seen:08d}.png")
    with (folder / LOG_NAME).open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def _recognise(state: TrainState, pictures: npt.NDArray[np.uint8]) -> None:
    found = fingerprint_of(pictures)
    if state.step and state.pictures not in ("", found):
        raise DatasetError(
            f"pictures are {len(pictures)} of {pictures.shape[1]} x {pictures.shape[2]} pixels, but the training began "
            "with another set; give that one, or begin another training with these (--start-from, and another --out)",
            field="pictures",
        )
    state.pictures = found


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

    Raises:
        DatasetError: The pictures do not fit, or are not those that the training began with.
        TrainingError: The training has diverged; what was written before stays.
    """
    _recognise(state, pictures)
    if state.step:
        trim_log(folder / LOG_NAME, state.images_before + state.images_seen)
    course = Course(state, pictures)
    started = time.monotonic()
    total, seen = schedule.total_images, state.images_seen
    saved_at = logged_at = seen
    last = seen >= total
    with tqdm(total=total, initial=seen, unit="img", mininterval=2.0, dynamic_ncols=True) as bar:
        while not last:
            course.step()
            bar.update(state.config.batch_size)
            seen, seconds = state.images_seen, time.monotonic() - started
            last = seen >= total or (schedule.max_seconds is not None and seconds > schedule.max_seconds)
            logs = last or seen - logged_at >= schedule.snapshot_images
            saves = last or seen - saved_at >= schedule.state_images
            if logs or saves:
                course.averages.check()
                check_finite(state)
            if logs:
                record = _measure(state, course, evaluate) | {"seconds": seconds}
                _write_snapshot(state, pictures, folder, record)
                bar.set_postfix({k: f"{record[k]:.3g}" for k in ("frechet", "ada_p") if k in record})
                logged_at = seen
            if saves:
                save_state(state, folder)
                saved_at = seen


def _measure(state: TrainState, course: Course, evaluate: Evaluation | None) -> dict[str, float]:
    """What the log says of the steps since its last line, and of the generator now."""
    random_state = torch.get_rng_state()
    record = {"images": float(state.images_before + state.images_seen)}
    record |= {"resolution": float(state.config.generator.resolution)}
    record |= course.averages.take() | {"ada_p": state.adaptive.p}
    if evaluate is not None and state.mapping_fitted:
        record |= evaluate(state.ema)
    torch.set_rng_state(random_state)  # measuring must not change what comes after
    return record
