"""`render`: make the pictures a generator or an oracle learns from."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from labelmint_export.datasets.folder import ImageFolderSet
from labelmint_export.datasets.toonhead import KEYPOINT_NAMES, Split, ToonHeadSet
from labelmint_export.errors import DatasetError
from labelmint_export.placing import check_file_place

CHUNK = 500


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    render = commands.add_parser("render", help="render ToonHead avatars, or read a folder of images, into one file")
    render.add_argument("--out", type=Path, required=True, help="file to write: .npy (pictures) or .npz (with labels)")
    render.add_argument("--count", type=int, help="number of avatars")
    render.add_argument("--images", type=Path, help="take the images of this folder instead of avatars")
    render.add_argument("--resolution", type=int, default=128, help="side of the pictures, pixels (default 128)")
    render.add_argument("--seed", type=int, default=0, help="of the avatars (default 0)")
    render.add_argument(
        "--split", choices=[s.name.lower() for s in Split], default="train", help="combinations of parts"
    )
    render.add_argument(
        "--pose-range", type=float, default=1.0, help="share of the ranges of rotation, scale and shift (default 1)"
    )
    render.add_argument("--labels", action="store_true", help="also write masks and keypoints (.npz)")
    render.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes that draw")
    render.set_defaults(run=run_render)


def run_render(arguments: argparse.Namespace) -> str:
    """Write the file that the arguments ask for."""
    out: Path = arguments.out
    wanted = ".npz" if arguments.labels else ".npy"
    if out.suffix != wanted:
        raise DatasetError(f"--out is {out}, expected a name that ends in {wanted}", field="out")
    check_file_place(out, "--out")
    if arguments.images is not None:
        if arguments.labels or arguments.count is not None:
            raise DatasetError("--images goes without --labels and --count: a folder has no labels", field="images")
        return f"wrote {out}: {_copy_folder(arguments.images, arguments.resolution, out)} pictures"
    if arguments.count is None or arguments.count < 1:
        raise DatasetError(f"--count is {arguments.count}, expected at least 1", field="count")
    if arguments.processes < 1:
        raise DatasetError(f"--processes is {arguments.processes}, expected at least 1", field="processes")
    avatars = ToonHeadSet(
        resolution=arguments.resolution,
        seed=arguments.seed,
        split=Split[arguments.split.upper()],
        pose_range=arguments.pose_range,
    )
    if arguments.labels:
        _render_labelled(avatars, arguments.count, arguments.processes, out)
    else:
        _render_pictures(avatars, arguments.count, arguments.processes, out)
    return f"wrote {out}: {arguments.count} pictures"


@contextlib.contextmanager
def _appearing_at_the_end(out: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes `out` when all is written, and vanishes after an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        yield partial
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _copy_folder(folder: Path, resolution: int, out: Path) -> int:
    images = ImageFolderSet(folder, resolution)
    shape = (len(images), resolution, resolution, 3)
    with _appearing_at_the_end(out) as partial:
        target = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for start in tqdm(range(0, len(images), CHUNK), desc="read", unit="chunk"):
            stop = min(start + CHUNK, len(images))
            target[start:stop] = images.read(range(start, stop))
        target.flush()
    return len(images)


def _render_pictures(avatars: ToonHeadSet, count: int, processes: int, out: Path) -> None:
    shape = (count, avatars.resolution, avatars.resolution, 3)
    step = CHUNK * processes
    with _appearing_at_the_end(out) as partial:
        target = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for start in tqdm(range(0, count, step), desc="render", unit="chunk"):
            stop = min(start + step, count)
            target[start:stop] = avatars.render_images(range(start, stop), num_processes=processes, show_progress=False)
        target.flush()


def _render_labelled(avatars: ToonHeadSet, count: int, processes: int, out: Path) -> None:
    side = avatars.resolution
    pictures = np.empty((count, side, side, 3), np.uint8)
    masks = np.empty((count, side, side), np.uint8)
    keypoints = np.empty((count, len(KEYPOINT_NAMES), 3), np.float32)
    step = CHUNK * processes
    for start in tqdm(range(0, count, step), desc="render", unit="chunk"):
        part = slice(start, min(start + step, count))
        pictures[part], masks[part], keypoints[part] = avatars.render_labelled(
            range(part.start, part.stop), num_processes=processes, show_progress=False
        )
    with _appearing_at_the_end(out) as partial, partial.open("wb") as file:
        np.savez(file, pictures=pictures, masks=masks, keypoints=keypoints)
