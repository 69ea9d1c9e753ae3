"""A folder of pictures to annotate, and label files for it in the layouts of other programs."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]  # it has no types

from labelmint_export.annotations import AnnotatedSet, AnnotationSchema, write_annotations

HEIGHT, WIDTH = 20, 24
CLASSES = ("ground", "cat", "ear")
PALETTE = ((10, 20, 30), (200, 30, 30), (30, 200, 90))
KEYPOINTS = ("nose", "tail")

Mask = npt.NDArray[np.uint8]


def make_pictures(folder: Path, count: int = 3) -> Path:
    """What `sample` writes: no label yet; higher than wide it is not, so that swapped axes show."""
    random = np.random.default_rng(1)
    schema = AnnotationSchema(class_names=CLASSES, palette=PALETTE, keypoint_names=KEYPOINTS)
    pictures = random.integers(0, 256, (count, HEIGHT, WIDTH, 3)).astype(np.uint8)
    masks = np.full((count, HEIGHT, WIDTH), 255, np.uint8)
    keypoints = np.zeros((count, len(KEYPOINTS), 3), np.float32)
    ws = torch.arange(count * 6, dtype=torch.float32).reshape(count, 2, 3)
    write_annotations(AnnotatedSet(schema, pictures, masks, keypoints, ws[:, 0], ws), folder)
    return folder


def truth(count: int = 3) -> Mask:
    """Masks in which each class occurs, each pixel labelled, other areas in every picture."""
    masks = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for index, mask in enumerate(masks):
        mask[4 : 15 + index, 3:19] = 1
        mask[6:9, 5 + index : 8 + index] = 2
    return masks


def write_json(path: Path, record: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def labelme_shape(label: str, kind: str, points: object, **more: object) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme_record(name: str, *shapes: dict[str, Any], size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def labelme_mask(label: str, inside: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """As LabelMe writes masks: a PNG of the box, whose corners are both inside."""
    rows, columns = np.nonzero(inside)
    top, left, bottom, right = rows.min(), columns.min(), rows.max(), columns.max()
    file = io.BytesIO()
    Image.fromarray(inside[top : bottom + 1, left : right + 1]).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    return labelme_shape(label, "mask", [[int(left), int(top)], [int(right), int(bottom)]], mask=text)


def coco_record(masks: Mask, *, compressed: bool = True) -> dict[str, Any]:
    """One annotation a class and picture, as RLE."""
    annotations: list[dict[str, Any]] = []
    for index, mask in enumerate(masks):
        for value in np.unique(mask[mask > 0]).tolist():
            inside = np.asfortranarray(mask == value).astype(np.uint8)
            rle = coco_mask.encode(inside)
            rle["counts"] = rle["counts"].decode()
            if not compressed:
                flat = inside.ravel(order="F")
                edges = np.flatnonzero(np.diff(flat, prepend=0))
                rle["counts"] = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": 10 + index,
                    "category_id": 5 + value,
                    "segmentation": rle,
                    "iscrowd": int(not compressed),
                }
            )
    return {
        "images": [
            {"id": 10 + i, "file_name": f"some/where/{i:02d}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(len(masks))
        ],
        "categories": [{"id": 5 + i, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": annotations,
    }


def cvat_file(path: Path, *images: str, names: tuple[str, ...] = CLASSES) -> Path:
    labels = "".join(f"<label><name>{name}</name></label>" for name in names)
    head = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{head}{"".join(images)}</annotations>')
    return path


def cvat_image(index: int, *shapes: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> str:
    inside = "".join(shapes)
    return f'<image id="{index}" name="{index:02d}.png" width="{size[1]}" height="{size[0]}">{inside}</image>'


def cvat_mask(label: str, inside: npt.NDArray[np.bool_], z_order: int = 0) -> str:
    rows, columns = np.nonzero(inside)
    top, left = int(rows.min()), int(columns.min())
    box = inside[top : rows.max() + 1, left : columns.max() + 1]
    flat = box.ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    runs = ", ".join(map(str, np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()))
    return (
        f'<mask label="{label}" rle="{runs}" left="{left}" top="{top}" width="{box.shape[1]}" '
        f'height="{box.shape[0]}" z_order="{z_order}"/>'
    )
