"""Annotation folders: what is written is read back, what a person may break is refused by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from labelmint_export.annotations import AnnotatedSet, AnnotationSchema, read_annotations, write_annotations
from labelmint_export.errors import AnnotationError
from labelmint_export.generator import Generator
from tests.export.tiny_parts import CLASS_NAMES, KEYPOINT_NAMES, make_annotated, make_schema


@pytest.fixture
def annotated(generator: Generator) -> AnnotatedSet:
    return make_annotated(generator)


@pytest.fixture
def folder(annotated: AnnotatedSet, tmp_path: Path) -> Path:
    write_annotations(annotated, tmp_path / "annotations")
    return tmp_path / "annotations"


def assert_equal(got: AnnotatedSet, expected: AnnotatedSet) -> None:
    assert got.schema == expected.schema
    assert np.array_equal(got.pictures, expected.pictures)
    assert np.array_equal(got.masks, expected.masks)
    assert np.array_equal(got.keypoints[..., 2], expected.keypoints[..., 2])
    assert np.abs(got.keypoints[..., :2] - expected.keypoints[..., :2]).max(initial=0) <= 0.005 + 1e-6
    assert torch.equal(got.z, expected.z)
    assert torch.equal(got.ws, expected.ws)


def test_set_is_read_back_as_it_was_written(annotated: AnnotatedSet, folder: Path) -> None:
    assert_equal(read_annotations(folder), annotated)
    assert {path.name for path in folder.iterdir()} == {
        "classes.json",
        "latents.safetensors",
        *(f"{i:02d}{suffix}" for i in range(3) for suffix in (".png", ".mask.png", ".json")),
    }


def test_set_without_keypoints_needs_no_labelme_files(annotated: AnnotatedSet, tmp_path: Path) -> None:
    bare = dataclasses.replace(annotated, schema=make_schema(0), keypoints=annotated.keypoints[:, :0])
    write_annotations(bare, tmp_path / "a")
    for path in tmp_path.glob("a/0*.json"):
        path.unlink()
    assert_equal(read_annotations(tmp_path / "a"), bare)


def test_more_than_a_hundred_pictures_keep_their_order(generator: Generator, tmp_path: Path) -> None:
    many = make_annotated(generator, 103)
    write_annotations(many, tmp_path / "a")
    assert (tmp_path / "a" / "007.mask.png").is_file()
    assert_equal(read_annotations(tmp_path / "a"), many)


def test_all_labels_up_to_the_255th_survive(generator: Generator, tmp_path: Path) -> None:
    count = 255
    schema = AnnotationSchema(
        class_names=tuple(f"class {i}" for i in range(count)), palette=tuple((i, 255 - i, 7) for i in range(count))
    )
    annotated = make_annotated(generator, 1)
    masks = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    full = dataclasses.replace(annotated, schema=schema, masks=masks, keypoints=np.zeros((1, 0, 3), np.float32))
    write_annotations(full, tmp_path / "a")
    assert_equal(read_annotations(tmp_path / "a"), full)


def test_mask_is_an_indexed_picture_in_the_colours_of_the_classes(annotated: AnnotatedSet, folder: Path) -> None:
    image = Image.open(folder / "00.mask.png")
    assert image.mode == "P"
    colours = np.asarray(image.convert("RGB"))
    for index, colour in enumerate(annotated.schema.palette):
        assert (colours[annotated.masks[0] == index] == colour).all()


def test_labelme_file_holds_the_visible_points_inside_the_picture(annotated: AnnotatedSet, folder: Path) -> None:
    for index in range(len(annotated)):
        record = json.loads((folder / f"{index:02d}.json").read_text())
        assert record["version"].split(".")[0] == "5"
        assert record["imagePath"] == f"{index:02d}.png"
        assert (record["imageHeight"], record["imageWidth"], record["imageData"]) == (16, 16, None)
        seen = [name for name, point in zip(KEYPOINT_NAMES, annotated.keypoints[index], strict=True) if point[2]]
        assert [shape["label"] for shape in record["shapes"]] == seen
        for shape in record["shapes"]:
            assert shape.keys() == {"label", "points", "group_id", "shape_type", "flags"}
            assert shape["shape_type"] == "point"
            ((x, y),) = shape["points"]
            assert 0 <= x <= 16
            assert 0 <= y <= 16


def test_grey_masks_without_a_palette_are_accepted(annotated: AnnotatedSet, folder: Path) -> None:
    Image.fromarray(annotated.masks[1]).save(folder / "01.mask.png")
    assert_equal(read_annotations(folder), annotated)


def test_folder_that_holds_something_is_not_written_to(annotated: AnnotatedSet, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "note.txt").write_text("mine")
    with pytest.raises(AnnotationError, match="is not empty") as caught:
        write_annotations(annotated, tmp_path / "a")
    assert caught.value.field == "folder"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["note.txt"]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def save_mask(folder: Path, mask: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    Image.fromarray(mask).save(folder / "01.mask.png")


def move_point(x: object, y: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "01.json", lambda r: r["shapes"][0].update(points=[[x, y]]))


def edit_shape(**fields: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "01.json", lambda r: r["shapes"][0].update(fields))


def truncate(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:40])


def repeat_point(folder: Path) -> None:
    edit(folder / "01.json", lambda r: r["shapes"].append(r["shapes"][0]))


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


def shrink(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "01.png")
    save_mask(folder, np.zeros((8, 8), np.uint8))


def save_latents(**tensors: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: safetensors.torch.save_file(tensors, folder / "latents.safetensors")


Z, WS = torch.zeros(3, 8), torch.zeros(3, 6, 10)

BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "mask of another size": (
        lambda f: save_mask(f, np.zeros((16, 15), np.uint8)),
        "mask",
        r"01\.mask\.png has 15 x 16",
    ),
    "unknown label": (
        lambda f: save_mask(f, np.full((16, 16), 4, np.uint8)),
        "mask",
        r"holds label 4, expected 0 to 3",
    ),
    "empty mask": (lambda f: save_mask(f, np.full((16, 16), 255, np.uint8)), "mask", r"01\.mask\.png is empty"),
    "coloured mask": (
        lambda f: save_mask(f, np.zeros((16, 16, 3), np.uint8)),
        "mask",
        "has mode RGB, expected an indexed",
    ),
    "picture missing": (lambda f: (f / "01.png").unlink(), "01.png", r"01\.png cannot be read"),
    "picture truncated": (lambda f: truncate(f, "01.png"), "01.png", r"01\.png cannot be read"),
    "picture of another size": (shrink, "pictures", "not all of one size"),
    "mask missing": (lambda f: (f / "01.mask.png").unlink(), "masks", "2 masks and 3 latents"),
    "mask no picture": (lambda f: write(f, "01.mask.png", "mask"), "01.mask.png", "cannot be read"),
    "points missing": (lambda f: (f / "01.json").unlink(), "01.json", r"01\.json cannot be read"),
    "points no JSON": (lambda f: truncate(f, "01.json"), "01.json", r"01\.json cannot be read as JSON"),
    "points a list": (lambda f: write(f, "01.json", "[]"), "01.json", "holds list"),
    "points nested too deep": (
        lambda f: write(f, "01.json", "[" * 200_000),
        "01.json",
        r"01\.json cannot be read as JSON",
    ),
    "no shapes": (lambda f: edit(f / "01.json", lambda r: r.pop("shapes")), "shapes", "has no list of shapes"),
    "shape no object": (
        lambda f: edit(f / "01.json", lambda r: r.update(shapes=["left"])),
        "shapes",
        "malformed shape",
    ),
    "polygon": (edit_shape(shape_type="polygon"), "shapes", "a polygon labelled"),
    "unknown keypoint": (edit_shape(label="elbow"), "shapes", "labelled 'elbow', expected points labelled one of"),
    "label no text": (edit_shape(label={"a": 1}), "shapes", "expected points labelled one of"),
    "point without places": (edit_shape(points=[]), "shapes", "malformed shape"),
    "point with three places": (edit_shape(points=[[1, 2, 3]]), "shapes", "malformed shape"),
    "point no number": (move_point("a", 1), "shapes", "malformed shape"),
    "point left of the picture": (move_point(-0.1, 3), "shapes", r"lies at \(-0.1, 3.0\), outside the 16 x 16"),
    "point below the picture": (move_point(3, 16.5), "shapes", "outside the 16 x 16"),
    "point beyond floats": (move_point(10**400, 3), "shapes", "malformed shape"),
    "point not a number": (move_point(float("nan"), 3), "shapes", "outside the 16 x 16"),
    "point twice": (repeat_point, "shapes", "has left twice"),
    "classes missing": (lambda f: (f / "classes.json").unlink(), "classes.json", "holds no classes.json, expected"),
    "classes malformed": (lambda f: truncate(f, "classes.json"), "classes.json", r"classes\.json cannot be read"),
    "class without colour": (
        lambda f: edit(f / "classes.json", lambda r: r["classes"][0].pop("color")),
        "classes",
        "expected classes with name and color",
    ),
    "colour out of range": (
        lambda f: edit(f / "classes.json", lambda r: r["classes"][0].update(color=[0, 0, 256])),
        "classes",
        "is not three numbers from 0 to 255",
    ),
    "class twice": (
        lambda f: edit(f / "classes.json", lambda r: r["classes"][0].update(name=CLASS_NAMES[1])),
        "classes",
        "2 to 255 different names",
    ),
    "keypoint name twice": (
        lambda f: edit(f / "classes.json", lambda r: r.update(keypoints=["left", "left"])),
        "keypoints",
        "expected different names",
    ),
    "skeleton out of range": (
        lambda f: edit(f / "classes.json", lambda r: r.update(skeleton=[[0, 3]])),
        "skeleton",
        "skeleton names keypoint 3",
    ),
    "skeleton without end": (
        lambda f: edit(f / "classes.json", lambda r: r.update(skeleton=[[0, float("inf")]])),
        "classes",
        "is malformed",
    ),
    "latents missing": (lambda f: (f / "latents.safetensors").unlink(), "latents", "does not exist"),
    "latents truncated": (lambda f: truncate(f, "latents.safetensors"), "latents", "no safetensors file"),
    "latents without ws": (save_latents(z=Z), "latents", r"expected z \[N, z_dim\]"),
    "latents of another shape": (save_latents(z=torch.tensor(1.0), ws=WS), "latents", r"expected z \[N, z_dim\]"),
    "latents of other counts": (save_latents(z=Z, ws=WS[:2]), "latents", r"expected z \[N, z_dim\]"),
    "latents of too few pictures": (save_latents(z=Z[:2], ws=WS[:2]), "masks", "3 masks and 2 latents"),
    "latents not finite": (save_latents(z=Z, ws=WS * torch.nan), "latents", "not finite"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folder_is_refused_by_name(folder: Path, case: str) -> None:
    damage, field, message = BROKEN[case]
    damage(folder)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(folder)
    assert caught.value.field == field


def test_huge_picture_is_refused_before_it_is_decoded(folder: Path) -> None:
    Image.new("1", (8192, 8192)).save(folder / "01.png")
    with pytest.raises(AnnotationError, match=r"01\.png has 8192 x 8192 pixels, expected at most"):
        read_annotations(folder)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"classes\.json"):
        read_annotations(tmp_path)


def test_folder_without_masks_is_refused(folder: Path) -> None:
    for path in folder.glob("*.mask.png"):
        path.unlink()
    with pytest.raises(AnnotationError, match="0 masks"):
        read_annotations(folder)
