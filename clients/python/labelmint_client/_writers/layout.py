"""Which files make a data set, so that those of others in its folder are told apart."""

import re
from collections.abc import Iterator
from pathlib import Path

from labelmint_client._errors import OutputError
from labelmint_client._writers.atomic import clear_errors, final_name
from labelmint_client._writers.coco import COCO_NAME
from labelmint_client._writers.journal import JOURNAL_NAME, parse_record
from labelmint_client._writers.keypoints import KEYPOINTS_NAME

DATASET_NAME = "dataset.json"
LICENCE_NAME = "LICENCE.txt"
CONTACT_SHEET_NAME = "contact_sheet.png"
FILES = (COCO_NAME, KEYPOINTS_NAME, CONTACT_SHEET_NAME, LICENCE_NAME)
FOLDERS = ("images", "masks", "uncertainty_maps")
FINISHED_KEYS = ("numerics_id", "request", "count", "num_samples", "next_index")
"""What dataset.json has at least; others have files of this name too."""

_SAMPLE_FILE = re.compile(r"\d{6,}\.(png|npy)")


def is_data_set(out: Path) -> bool:
    """Tell whether a folder holds a data set, finished or not.

    Args:
        out: The folder.

    Raises:
        OutputError: It cannot be read.
    """
    return (out / JOURNAL_NAME).exists() or _is_finished(out)


def foreign_files(out: Path) -> Iterator[str]:
    """Name what lies in a folder and belongs to no data set.

    Args:
        out: The folder.

    Raises:
        OutputError: It cannot be read.
    """
    ours = {*FOLDERS, *FILES, JOURNAL_NAME, *([DATASET_NAME] if is_data_set(out) else [])}
    yield from (name for name in _names(out) if final_name(name) not in ours)


def foreign_sample_files(out: Path) -> Iterator[str]:
    """Name what others put beside the files of the samples.

    Args:
        out: Folder of the data set.

    Raises:
        OutputError: A folder cannot be read.
    """
    for folder in FOLDERS:
        if (out / folder).exists():
            yield from (
                f"{folder}/{name}" for name in _names(out / folder) if not _SAMPLE_FILE.fullmatch(final_name(name))
            )


def _names(folder: Path) -> list[str]:
    with clear_errors(folder, "read"):
        return sorted(path.name for path in folder.iterdir())


def _is_finished(out: Path) -> bool:
    path = out / DATASET_NAME
    with clear_errors(path, "read"):
        text = path.read_bytes() if path.exists() else b""
    try:
        parse_record(text, str(path), FINISHED_KEYS)
    except OutputError:
        return False
    return True
