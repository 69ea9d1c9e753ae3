"""Pictures: read for training, turned into what networks see and back, painted from latents, laid out in grids.

Legend: N images, H rows, W columns.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from labelmint_export.errors import DatasetError
from labelmint_export.generator import Backbone
from labelmint_export.placing import file_placed_whole

FINGERPRINT_PICTURES = 64


def open_pictures(path: Path) -> npt.NDArray[np.uint8]:
    """Map a rendered set into memory.

    Args:
        path: `.npy` file of uint8 [N, H, W, 3], square pictures.

    Returns:
        uint8 [N, H, W, 3], read from disk on access.

    Raises:
        DatasetError: The file is missing, malformed or of another shape.
    """
    try:
        pictures: npt.NDArray[np.uint8] = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} does not exist; make it with `labelmint-export render`", field="pictures"
        ) from error
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(f"{path} is no .npy file ({error}); render it anew", field="pictures") from error
    shape = pictures.shape
    if pictures.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or not shape[0]:
        raise DatasetError(
            f"{path} holds {pictures.dtype} {list(shape)}, expected uint8 [N, H, H, 3]; render it anew",
            field="pictures",
        )
    return pictures


def fingerprint_of(pictures: npt.NDArray[np.uint8]) -> str:
    """Tell sets apart without reading all of them: by number, size and FINGERPRINT_PICTURES pictures.

    Args:
        pictures: uint8 [N, H, W, 3].

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.sha256(repr(pictures.shape).encode())
    for index in np.linspace(0, len(pictures) - 1, FINGERPRINT_PICTURES).astype(int):
        digest.update(pictures[index].tobytes())
    return digest.hexdigest()


def check_side(side: int, resolution: int) -> None:
    """Refuse pictures that cannot be averaged down to a resolution.

    Raises:
        DatasetError: Their side is no multiple of it.
    """
    if side % resolution:
        raise DatasetError(
            f"pictures are {side} pixels wide, expected a multiple of {resolution}; give pictures of such a size",
            field="pictures",
        )


def normalize(pictures: torch.Tensor) -> torch.Tensor:
    """Turn uint8 [N, H, W, 3] into float32 [N, 3, H, W], [-1, 1], channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def average_down(pictures: torch.Tensor, resolution: int) -> torch.Tensor:
    """Turn pictures into what the networks see, where they lie.

    Args:
        pictures: uint8 [N, H, W, 3]; H is a multiple of resolution.
        resolution: Wanted side; larger pictures are averaged down.

    Returns:
        float32 [N, 3, resolution, resolution], [-1, 1], channels last.

    Raises:
        DatasetError: H is no multiple of resolution.
    """
    side = pictures.shape[1]
    check_side(side, resolution)
    x = normalize(pictures)
    if side != resolution:
        x = functional.avg_pool2d(x, side // resolution)
    return x.contiguous(memory_format=torch.channels_last)


def to_range(pictures: npt.NDArray[np.uint8], resolution: int, device: torch.device) -> torch.Tensor:
    """Bring pictures to a device, and turn them there into what the networks see.

    Args:
        pictures: uint8 [N, H, W, 3]; H is a multiple of resolution.
        resolution: Wanted side; larger pictures are averaged down.
        device: Where the result lies.

    Returns:
        float32 [N, 3, resolution, resolution], [-1, 1], channels last.

    Raises:
        DatasetError: H is no multiple of resolution.
    """
    placed = torch.from_numpy(np.array(pictures)).to(device)  # a copy: mapped files are read-only
    return average_down(placed, resolution)


def to_uint8(image: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Turn the generator's output into pixels: floor(clamp(127.5 x + 128, 0, 255)).

    Args:
        image: float [N, 1 or 3, H, W].

    Returns:
        uint8 [N, H, W, 3]; grey is replicated.
    """
    x = (image.float() * 127.5 + 128).clamp(0, 255).floor().to(torch.uint8)
    if x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    return x.permute(0, 2, 3, 1).contiguous().cpu().numpy()


@torch.no_grad()
def paint(generator: Backbone, ws: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Paint latents with the stored noise, one after another: the feature maps of many would not fit into memory.

    Args:
        generator: Paints them.
        ws: float32 [N, num_ws, w_dim].

    Returns:
        uint8 [N, H, W, 3].
    """
    return np.concatenate([to_uint8(generator.synthesis(one, "const").image) for one in torch.split(ws, 1)])


def save_grid(pictures: npt.NDArray[np.uint8], columns: int, path: Path) -> None:
    """Write pictures side by side.

    Args:
        pictures: uint8 [N, H, W, 3]; N is a multiple of columns.
        columns: Pictures a row.
        path: PNG file.
    """
    count, height, width, _ = pictures.shape
    rows = count // columns
    sheet = pictures.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)  # [R, H, columns, W, 3]
    with file_placed_whole(path) as partial:
        Image.fromarray(sheet.reshape(rows * height, columns * width, 3)).save(partial, format="PNG")
