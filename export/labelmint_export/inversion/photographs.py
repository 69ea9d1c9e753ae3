"""The pictures that are to be inverted, from a folder.

Legend: N images, H rows, W columns.
"""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmint_export.datasets.folder import ImageFolderSet
from labelmint_export.errors import AnnotationError

ASPECT_TOLERANCE = 0.01


def read_photographs(folder: Path, resolution: int) -> tuple[tuple[str, ...], npt.NDArray[np.uint8]]:
    """Read square pictures and bring them to the generator's size.

    Args:
        folder: Of images, and folders below it.
        resolution: H = W.

    Returns:
        Names of the files without endings, ascending, and uint8 [N, H, W, 3], sRGB.

    Raises:
        AnnotationError: A picture is not square, so that its labels would not fit any more, or two have one name.
        DatasetError: The folder holds no images, or one cannot be read.
    """
    images = ImageFolderSet(folder, resolution)
    order = sorted(range(len(images)), key=lambda index: images.paths[index].stem)
    for first, second in itertools.pairwise(images.paths[index] for index in order):
        if first.stem == second.stem:
            raise AnnotationError(
                f"{first} and {second} have one name, by which labels find their picture; rename one", field="images"
            )
    photographs = images.read(order)
    for path in images.paths:
        _check_square(path)
    return tuple(images.paths[index].stem for index in order), photographs


def _check_square(path: Path) -> None:
    with Image.open(path) as image:
        width, height = image.size
    if abs(width - height) > ASPECT_TOLERANCE * max(width, height):
        raise AnnotationError(
            f"{path} has {width} x {height} pixels, expected a square; cut picture and labels to a square around what "
            "the generator paints",
            field="images",
        )
