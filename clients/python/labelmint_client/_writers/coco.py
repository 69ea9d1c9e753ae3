"""The COCO form: one annotations.json beside the images.

As in COCO-Stuff, each class that occurs in an image is one annotation with a run-length mask (`iscrowd` 0, uncompressed
counts), and `category_id` is the class id of the mask. A class named "background" is no category. A model with
keypoints adds one annotation an image, of the category `SUBJECT_CATEGORY`: the region of everything but the background,
with the keypoints. Boxes and keypoints count from the top left corner of the image; pixel centres lie at +0.5.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from labelmint_client._model import Model
from labelmint_client._sample import Sample
from labelmint_client._writers.atomic import atomic_file
from labelmint_client._writers.journal import Record
from labelmint_client._writers.pictures import resized_mask
from labelmint_client._writers.rle import Region, class_regions, region_of
from labelmint_client._writers.spec import DatasetSpec, licence_record

COCO_NAME = "annotations.json"
BACKGROUND = "background"
# Beyond every class id of a mask.
SUBJECT_CATEGORY = 256

_VISIBLE = 2
_ABSENT = 0


def coco_regions(sample: Sample, model: Model) -> list[Record]:
    """Encode the regions of a sample for the journal.

    Args:
        sample: With mask.
        model: Its model.

    Returns:
        Class regions, then the subject if the model has keypoints.
    """
    mask = resized_mask(sample.mask, model.image_size)
    outside = frozenset(
        {model.manifest.ignore_label, *(i for i, name in enumerate(model.class_names) if name == BACKGROUND)}
    )
    regions = class_regions(mask, skip=outside)
    if model.keypoint_names:
        subject = region_of(~np.isin(mask, list(outside)), SUBJECT_CATEGORY)
        regions += [] if subject is None else [subject]
    return [_region_record(region) for region in regions]


def write_coco(folder: Path, spec: DatasetSpec, records: Callable[[], Iterable[Record]]) -> None:
    """Write annotations.json, one sample at a time.

    Args:
        folder: Folder of the data set.
        spec: The data set.
        records: Reads the journal's samples from the start; called twice.

    Raises:
        OutputError: The file cannot be written.
    """
    model = spec.model
    with atomic_file(folder / COCO_NAME) as file:
        file.write(b'{\n"info": ' + _json(_info(model, spec)))
        file.write(b',\n"licenses": ' + _json(_licences(model)))
        file.write(b',\n"categories": ' + _json(_categories(model)))
        file.write(b',\n"images": [\n')
        _write_items(file, _images(model, records()))
        file.write(b'\n],\n"annotations": [\n')
        _write_items(file, _annotations(spec, records()))
        file.write(b"\n]\n}\n")


def _info(model: Model, spec: DatasetSpec) -> Record:
    return {
        "description": f"Samples of the model {model.name}, generated and labelled by labelmint",
        "version": model.version,
        "url": model.licence.url,
        "contributor": "labelmint",
        "attribution": model.licence.attribution,
        "labelmint": {"digest": model.digest, "request": dict(spec.request)},
    }


def _licences(model: Model) -> list[Record]:
    licence = licence_record(model)
    return [{"id": 1, "name": licence["data"], "url": licence["url"], **licence}]


def _categories(model: Model) -> list[Record]:
    categories: list[Record] = [
        {"id": label, "name": name, "supercategory": model.name, "colour": colour}
        for label, (name, colour) in enumerate(zip(model.class_names, model.palette.tolist(), strict=True))
        if name != BACKGROUND
    ]
    if model.keypoint_names:
        categories.append(
            {
                "id": SUBJECT_CATEGORY,
                "name": model.name,
                "supercategory": "subject",
                "keypoints": list(model.keypoint_names),
                # COCO numbers keypoints from 1.
                "skeleton": [[first + 1, second + 1] for first, second in model.skeleton],
            }
        )
    return categories


def _images(model: Model, records: Iterable[Record]) -> Iterator[Record]:
    height, width = model.image_size
    for number, record in enumerate(records, start=1):
        image = {
            "id": number,
            "file_name": record["image"],
            "width": width,
            "height": height,
            "license": 1,
            "sample_index": record["index"],
            "uncertainty": record["uncertainty"],
        }
        if record["class_index"] is not None:
            image["class_index"] = record["class_index"]
        yield image


def _annotations(spec: DatasetSpec, records: Iterable[Record]) -> Iterator[Record]:
    height, width = spec.model.image_size
    annotation_id = 0
    for number, record in enumerate(records, start=1):
        for region in record["regions"]:
            annotation_id += 1
            annotation: Record = {
                "id": annotation_id,
                "image_id": number,
                "category_id": region["label"],
                "segmentation": {"size": [height, width], "counts": region["counts"]},
                "area": region["area"],
                "bbox": region["bbox"],
                "iscrowd": 0,
            }
            if region["label"] == SUBJECT_CATEGORY:
                annotation |= _keypoints(record["keypoints"])
            yield annotation


def _keypoints(points: list[list[float]]) -> Record:
    """A keypoint that the model calls invisible has no place it could vouch for: COCO's "not labelled", all zero."""
    flat: list[float] = []
    for x, y, _, visible in points:
        flat += [x, y, _VISIBLE] if visible else [0, 0, _ABSENT]
    return {"keypoints": flat, "num_keypoints": sum(1 for point in points if point[3])}


def _region_record(region: Region) -> Record:
    return {"label": region.label, "counts": region.counts, "area": region.area, "bbox": list(region.bbox)}


def _write_items(file: IO[bytes], items: Iterable[Record]) -> None:
    for number, item in enumerate(items):
        file.write(b",\n" if number else b"")
        file.write(_json(item))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
