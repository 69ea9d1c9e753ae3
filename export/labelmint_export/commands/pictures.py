"""`render`: make the pictures a generator or an oracle learns from."""

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from labelmint_export.datasets.folder import ImageFolderSet
from labelmint_export.datasets.toonhead import Split, ToonHeadSet
from labelmint_export.errors import DatasetError, OutputError
from labelmint_export.placing import check_file_place, file_placed_whole


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this stage."""
    render = commands.add_parser("render", help="render ToonHead avatars, or read a folder of images, into one file")
    render.add_argument("--out", type=Path, required=True, help="file to write: .npy (pictures) or .npz (with labels)")
    render.add_argument("--count", type=int, help="number of avatars, at least 1")
    render.add_argument(
        "--images",
        type=Path,
        help="take the images of this folder, and of those in it, instead of avatars: turned upright, laid on white, "
        "cropped to the square in their middle and resized",
    )
    render.add_argument(
        "--resolution", type=int, default=128, help="side of the pictures, pixels (default %(default)s)"
    )
    render.add_argument("--seed", type=int, default=0, help="another one gives other avatars (default %(default)s)")
    render.add_argument(
        "--split",
        choices=[s.name.lower() for s in Split],
        default="train",
        help="combinations of parts: those of the test are in no picture of the training (default %(default)s)",
    )
    render.add_argument(
        "--pose-range",
        type=float,
        default=1.0,
        help="share of the ranges of rotation, scale and shift, 0 to 1 (default %(default)s)",
    )
    render.add_argument("--labels", action="store_true", help="also write masks and keypoints (.npz)")
    render.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        help="processes that draw; their number changes nothing else (default: one for each core)",
    )
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
    indices = range(arguments.count)
    _check_space(out, arguments.count, avatars.resolution**2 * (4 if arguments.labels else 3))
    if arguments.labels:
        pictures, masks, keypoints = avatars.render_labelled(
            indices, num_processes=arguments.processes, show_progress=True
        )
        with file_placed_whole(out) as partial, partial.open("wb") as file:
            np.savez(file, pictures=pictures, masks=masks, keypoints=keypoints)
    else:
        drawn = avatars.draw(indices, num_processes=arguments.processes, show_progress=False)
        _write_pictures(drawn, arguments.count, avatars.resolution, out)
    return f"wrote {out}: {arguments.count} pictures"


def _copy_folder(folder: Path, resolution: int, out: Path) -> int:
    images = ImageFolderSet(folder, resolution)
    _check_space(out, len(images), 3 * resolution**2)
    _write_pictures((images.read([number])[0] for number in range(len(images))), len(images), resolution, out)
    return len(images)


def _check_space(out: Path, count: int, picture_bytes: int) -> None:
    """Refuse what does not fit, before hours of drawing it; makes the folder.

    Raises:
        OutputError: There is too little space.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if count * picture_bytes > free:
        raise OutputError(
            f"{out} takes {count * picture_bytes} bytes, but {free} are free there; ask for fewer pictures or give "
            "another path",
            field="out",
        )


def _write_pictures(pictures: Iterable[npt.NDArray[np.uint8]], count: int, side: int, out: Path) -> None:
    """Write an array picture by picture. Through a memory map a full disk would kill the process."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    with (
        file_placed_whole(out) as partial,
        partial.open("wb") as file,
        tqdm(total=count, desc="pictures", unit="picture", mininterval=2.0) as bar,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for picture in pictures:
            file.write(picture.tobytes())
            bar.update()
