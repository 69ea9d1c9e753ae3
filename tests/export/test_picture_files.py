"""Files of pictures that are none are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelmint_export.errors import DatasetError
from labelmint_export.pictures import open_pictures

PICTURES = np.zeros((2, 8, 8, 3), np.uint8)


def write_labelled(path: Path) -> None:
    """What `render --labels` writes, under the name of what it writes without."""
    with path.open("wb") as file:
        np.savez(file, pictures=PICTURES)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "does not exist"),
    "folder": (Path.mkdir, "is no .npy file"),
    "empty": (Path.touch, "is no .npy file"),
    "labelled set": (write_labelled, "is no .npy file"),
    "objects": (lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True), "is no .npy file"),
    "wide": (lambda path: np.save(path, PICTURES[:, :, :4]), r"holds uint8 \[2, 8, 4, 3\], expected uint8"),
    "real numbers": (lambda path: np.save(path, PICTURES.astype(np.float32)), "holds float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_file_without_pictures_is_refused(tmp_path: Path, case: str) -> None:
    write, message = BAD[case]
    write(tmp_path / "pictures.npy")
    with pytest.raises(DatasetError, match=message) as caught:
        open_pictures(tmp_path / "pictures.npy")
    assert caught.value.field == "pictures"


def test_pictures_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = np.random.default_rng(0).integers(0, 256, PICTURES.shape).astype(np.uint8)
    np.save(tmp_path / "pictures.npy", written)
    assert np.array_equal(open_pictures(tmp_path / "pictures.npy"), written)
