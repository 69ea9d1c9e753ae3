"""Labelled pictures on disk: one .npz with `pictures`, `masks` and `keypoints`."""

import zipfile
from pathlib import Path

import numpy as np

from labelmint_export.errors import DatasetError, TrainingError
from labelmint_export.oracle.training import LabelledPictures


def load_labelled(path: Path) -> LabelledPictures:
    """Read a labelled set that `render --labels` wrote.

    Raises:
        DatasetError: The file is missing, malformed, or its arrays do not belong together.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DatasetError(
                f"{path} is no labelled set but a single array; make one with `labelmint-export render --labels`",
                field="labelled",
            )
        with file:
            return LabelledPictures(file["pictures"], file["masks"], file["keypoints"])
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} does not exist; make it with `labelmint-export render --labels`", field="labelled"
        ) from error
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, TrainingError) as error:
        raise DatasetError(f"{path} is no labelled set ({error}); render it anew", field="labelled") from error
