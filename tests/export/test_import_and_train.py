"""From imported labels to an interpreter; the annotations of the embedded model through other formats and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]  # it has no types

from labelmint_export.annotations import AnnotatedSet, read_annotations
from labelmint_export.cli import main
from labelmint_export.generator import Generator
from labelmint_export.generator.snapshots import save_generator
from labelmint_export.interpreter.storage import load_interpreter
from tests.export.label_files import labelme_record, labelme_shape, write_json

# pycocotools has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EMBEDDED = Path(__file__).parents[2] / "export" / "toonhead" / "annotations"


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def embedded() -> AnnotatedSet:
    return read_annotations(EMBEDDED)


def test_interpreter_is_trained_from_imported_labels(
    generator: Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "generator.safetensors"
    save_generator(generator, path)
    names = ["--classes", "ground", "disc", "--keypoints", "tip"]
    run("sample", "--generator", path, "--out", tmp_path / "to-draw", "--count", 4, *names)
    for index in (0, 1, 3):
        shapes = [labelme_shape("Disc", "circle", [[8, 8], [8, 13]]), labelme_shape("tip", "point", [[8, 3]])]
        record = labelme_record(f"{index:02d}.png", *shapes, size=(16, 16))
        write_json(tmp_path / "to-draw" / f"{index:02d}.json", record)
    drawn = ["--pictures", tmp_path / "to-draw", "--labels", tmp_path / "to-draw", "--rename", "Disc=disc"]
    run("import-annotations", *drawn, "--out", tmp_path / "drawn")
    assert "pictures without labels, left out: 1 (02)" in capsys.readouterr().out
    out = tmp_path / "interpreter.safetensors"
    small = ["--members", 2, "--steps", 2]
    run("train-interpreter", "--generator", path, "--annotations", tmp_path / "drawn", "--out", out, *small)
    interpreter = load_interpreter(out)
    assert (interpreter.config.num_classes, interpreter.config.num_keypoints) == (2, 1)
    assert json.loads(out.with_suffix(".json").read_text())["provenance"]["num_annotated_images"] == 3


def write_coco(annotated: AnnotatedSet, path: Path) -> Path:
    names = annotated.schema.class_names
    annotations: list[dict[str, object]] = []
    for image, mask in enumerate(annotated.masks):
        for value in np.unique(mask).tolist():
            rle = coco_mask.encode(np.asfortranarray(mask == value).astype(np.uint8))
            rle["counts"] = rle["counts"].decode()
            annotations.append({"image_id": image, "category_id": value, "segmentation": rle})
        flat = [v for x, y, seen in annotated.keypoints[image].tolist() for v in (x, y, 2 * int(seen))]
        annotations.append({"image_id": image, "category_id": len(names), "segmentation": [], "keypoints": flat})
    images = [{"id": i, "file_name": f"{i:02d}.png", "height": 128, "width": 128} for i in range(len(annotated))]
    categories: list[dict[str, object]] = [{"id": i, "name": name} for i, name in enumerate(names)]
    categories.append({"id": len(names), "name": "head", "keypoints": list(annotated.schema.keypoint_names)})
    return write_json(path, {"images": images, "categories": categories, "annotations": annotations})


def write_colours(annotated: AnnotatedSet, folder: Path) -> Path:
    folder.mkdir()
    for index, mask in enumerate(annotated.masks):
        colours = np.array(annotated.schema.palette, np.uint8)[mask]
        Image.fromarray(colours).save(folder / f"{index:02d}.png")
    return folder


@pytest.mark.parametrize("kind", ["coco", "colours and points"])
def test_embedded_annotations_survive_other_formats(embedded: AnnotatedSet, tmp_path: Path, kind: str) -> None:
    if kind == "coco":
        labels = [write_coco(embedded, tmp_path / "c.json")]
    else:
        labels = [write_colours(embedded, tmp_path / "m"), EMBEDDED]
    run("import-annotations", "--pictures", EMBEDDED, "--labels", *labels, "--out", tmp_path / "out")
    again = read_annotations(tmp_path / "out")
    assert np.array_equal(again.masks, embedded.masks)
    assert np.array_equal(again.keypoints, embedded.keypoints)
    assert np.array_equal(again.pictures, embedded.pictures)
    assert again.schema == embedded.schema
    for name in ("latents.safetensors", "classes.json", "07.json", "07.mask.png"):
        assert (tmp_path / "out" / name).read_bytes() == (EMBEDDED / name).read_bytes()
