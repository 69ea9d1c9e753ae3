"""The keypoints of all samples: one keypoints.json beside the masks."""

import json
from collections.abc import Iterable
from pathlib import Path

from labelmint_client._model import Model
from labelmint_client._writers.atomic import atomic_file
from labelmint_client._writers.journal import Record

KEYPOINTS_NAME = "keypoints.json"


def write_keypoints(folder: Path, model: Model, records: Iterable[Record]) -> None:
    """Write keypoints.json, one sample at a time.

    Args:
        folder: Folder of the data set.
        model: A model with keypoints.
        records: The journal's samples.

    Raises:
        OutputError: The file cannot be written.
    """
    head = {"names": list(model.keypoint_names), "skeleton": [list(pair) for pair in model.skeleton]}
    with atomic_file(folder / KEYPOINTS_NAME) as file:
        file.write(json.dumps(head)[:-1].encode() + b', "columns": ["x", "y", "score", "visible"], "samples": [\n')
        for number, record in enumerate(records):
            sample = {key: record[key] for key in ("index", "image", "uncertainty", "keypoints")}
            file.write((b",\n" if number else b"") + json.dumps(sample).encode())
        file.write(b"\n]}\n")
