"""Labelled pictures on disk: one .npz with `pictures`, `masks` and `keypoints`."""

import zipfile
from pathlib import Path

import numpy as np

from labelmint_export.errors import DatasetError, TrainingError
from labelmint_export.oracle.network import SegmenterConfig
from labelmint_export.oracle.training import LabelledPictures


def load_labelled(path: Path, config: SegmenterConfig | None = None) -> LabelledPictures:
    """Read a labelled set that `render --labels` wrote.

    Args:
        path: `.npz` file.
        config: Shape of the network whose classes and keypoints the labels must be; None for any.

    Raises:
        DatasetError: The file is missing, malformed, its arrays do not belong together, or its labels are others.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DatasetError(
                f"{path} is no labelled set but a single array; make one with `labelmint-export render --labels`",
                field="labelled",
            )
        with file:
            labelled = LabelledPictures(file["pictures"], file["masks"], file["keypoints"])
        if config is not None:
            labelled.check_labels(config)
        return labelled
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} does not exist; make it with `labelmint-export render --labels`", field="labelled"
        ) from error
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, TrainingError) as error:
        raise DatasetError(f"{path} is no labelled set ({error}); render it anew", field="labelled") from error
