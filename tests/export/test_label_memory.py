"""Memory and time of reading and drawing labels: those of a picture, however many masks a small file claims."""

from __future__ import annotations

import base64
import io
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from labelmint_export.annotations import AnnotatedSet, AnnotationSchema
from labelmint_export.annotations.coco import read_coco
from labelmint_export.annotations.cvat import read_cvat
from labelmint_export.annotations.drawing import Ellipse, Frame, Polygons, Raster, Shape, Stroke
from labelmint_export.annotations.import_report import ImportReport
from labelmint_export.annotations.importing import import_labels
from labelmint_export.annotations.labelme import read_labelme
from labelmint_export.annotations.labels import LabelSource, PictureLabels, Region
from labelmint_export.annotations.mask_files import read_npy_masks, read_png_masks
from labelmint_export.annotations.painting import ImportSettings, Overlap
from labelmint_export.annotations.palettes import palette_of_schema
from tests.export.label_files import cvat_file, cvat_image, labelme_record, labelme_shape, write_json

SIDE = 512
MASK_BYTES = SIDE * SIDE
NUM_MASKS = 64
NOTHING: frozenset[str] = frozenset()

Mask = npt.NDArray[np.uint8]


def pictures_of(side: int, num: int = 1, num_classes: int = 2) -> AnnotatedSet:
    names = tuple(f"class {index}" for index in range(num_classes))
    schema = AnnotationSchema(class_names=names, palette=tuple((index, 1, 2) for index in range(num_classes)))
    ws = torch.zeros(num, 1, 2)
    numbers = tuple(f"{index:03d}" for index in range(num))
    return AnnotatedSet.unlabelled(schema, np.zeros((num, side, side, 3), np.uint8), ws[:, 0], ws, numbers)


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def full_coco(path: Path, num: int, side: int = SIDE, **category: object) -> Path:
    """Masks that are one run, in a few bytes."""
    rle = {"size": [side, side], "counts": [0, side * side]}
    return write_json(
        path,
        {
            "images": [{"id": 1, "file_name": "000.png", "height": side, "width": side}],
            "categories": [{"id": 1, "name": "class 1"} | category],
            "annotations": [{"id": i, "image_id": 1, "category_id": 1, "segmentation": rle} for i in range(num)],
        },
    )


def full_cvat(path: Path, num: int, side: int = SIDE) -> Path:
    mask = f'<mask label="class 1" rle="0, {side * side}" left="0" top="0" width="{side}" height="{side}"/>'
    image = cvat_image(0, *[mask] * num, size=(side, side)).replace("00.png", "000.png")
    return cvat_file(path, image, names=("class 1",))


def full_labelme(path: Path, num: int, side: int = SIDE) -> Path:
    file = io.BytesIO()
    Image.new("1", (side, side), 1).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    shape = labelme_shape("class 1", "mask", [[0, 0], [side - 1, side - 1]], mask=text)
    return write_json(path, labelme_record("000.png", *[shape] * num, size=(side, side)))


READERS: dict[str, Callable[[Path, int], LabelSource]] = {
    "coco": lambda path, num: read_coco(full_coco(path, num), None, NOTHING),
    "cvat": lambda path, num: read_cvat(full_cvat(path, num), None, NOTHING),
    "labelme": lambda path, num: read_labelme(path, [full_labelme(path, num)], None, NOTHING),
}


@pytest.mark.parametrize("overlap", ["file", "smallest"])
@pytest.mark.parametrize("kind", READERS)
def test_masks_of_a_picture_are_decoded_one_at_a_time(tmp_path: Path, kind: str, overlap: Overlap) -> None:
    pictures = pictures_of(SIDE)
    imported: list[tuple[AnnotatedSet, ImportReport]] = []

    def work() -> None:
        source = READERS[kind](tmp_path / "labels", NUM_MASKS)
        settings = ImportSettings(background="class 0", overlap=overlap)
        imported.append(import_labels(pictures, [source], settings))

    assert peak_bytes(work) < NUM_MASKS * MASK_BYTES / 2
    ((annotated, report),) = imported
    assert (annotated.masks == 1).all()
    assert len(report.covered_shapes) == NUM_MASKS - 1


@pytest.mark.parametrize("kind", ["coco", "cvat"])
def test_hostile_masks_of_pictures_that_are_not_there_are_never_decoded(tmp_path: Path, kind: str) -> None:
    """Some hundred kilobytes that claim 33 GB."""
    side, num = 4096, 2000
    pictures = pictures_of(16, 2)
    beside = PictureLabels("001.png", tmp_path, (16, 16), (Region("class 1", Polygons((RING,)), "here"),))

    def work() -> None:
        path = tmp_path / kind
        if kind == "coco":
            source = read_coco(full_coco(path, num, side), None, NOTHING)
        else:
            source = read_cvat(full_cvat(path, num, side), None, NOTHING)
        strangers = LabelSource(
            path, kind, tuple(PictureLabels("x.png", path, one.size, one.regions) for one in source.pictures)
        )
        _, report = import_labels(
            pictures, [strangers, LabelSource(tmp_path, "labelme", (beside,))], ImportSettings(background="class 0")
        )
        assert report.labels_without_pictures == ("x.png",)

    assert peak_bytes(work) < side * side


RING = np.array([[2.0, 2.0], [9.0, 2.0], [9.0, 9.0]])


def class_maps(num: int, num_classes: int) -> list[Mask]:
    """Areas of 32 x 32 pixels, as smooth as those that people draw."""
    random = np.random.default_rng(0)
    coarse = [random.integers(0, num_classes, (SIDE // 32, SIDE // 32)).astype(np.uint8) for _ in range(num)]
    return [np.kron(one, np.ones((32, 32), np.uint8)).astype(np.uint8) for one in coarse]


@pytest.mark.parametrize("kind", ["indexed", "colours", "npy"])
def test_mask_files_of_large_photographs_take_the_memory_of_one(tmp_path: Path, kind: str) -> None:
    num, num_classes, side = 8, 20, 64
    pictures, maps = pictures_of(side, num, num_classes), class_maps(num, num_classes)
    imported: list[AnnotatedSet] = []
    paths = [tmp_path / f"{index:03d}.{'npy' if kind == 'npy' else 'png'}" for index in range(num)]
    for path, one in zip(paths, maps, strict=True):
        if kind == "npy":
            np.save(path, one)
        elif kind == "indexed":
            Image.fromarray(one).save(path)
        else:
            Image.fromarray(np.array(pictures.schema.palette, np.uint8)[one]).save(path)

    def work() -> None:
        read = read_npy_masks if kind == "npy" else read_png_masks
        source = read(tmp_path, paths, palette_of_schema(pictures.schema))
        imported.append(import_labels(pictures, [source], ImportSettings(rescale=True))[0])

    assert peak_bytes(work) < num * num_classes * MASK_BYTES / 3
    scale = SIDE // side
    assert np.array_equal(imported[0].masks, np.stack(maps)[:, scale // 2 :: scale, scale // 2 :: scale])


def test_more_values_than_a_byte_holds_are_told_apart(tmp_path: Path) -> None:
    values = np.arange(400).reshape(20, 20)
    np.save(tmp_path / "000.npy", values)
    palette = palette_of_schema(pictures_of(20).schema)
    palette.numbers.update({value: f"class {value % 2}" for value in range(400)})
    source = read_npy_masks(tmp_path, [tmp_path / "000.npy"], palette)
    annotated, _ = import_labels(pictures_of(20), [source], ImportSettings())
    assert np.array_equal(annotated.masks[0], values % 2)


def test_counting_pixels_takes_the_memory_of_one_picture() -> None:
    num = 24
    ring = np.array([[0.0, 0.0], [SIDE, 0.0], [SIDE, SIDE], [0.0, SIDE]])
    labels = [
        PictureLabels(f"{index:03d}.png", Path(), (SIDE, SIDE), (Region("class 1", Polygons((ring,)), "here"),))
        for index in range(num)
    ]
    pictures = pictures_of(SIDE, num)
    source = LabelSource(Path(), "labelme", tuple(labels))
    peak = peak_bytes(lambda: import_labels(pictures, [source], ImportSettings(background="class 0")))
    assert peak < pictures.pictures.nbytes + 2 * pictures.masks.nbytes + 24 * MASK_BYTES


SMALL_SHAPES: dict[str, Shape] = {
    "polygon": Polygons((np.array([[3000.0, 40.0], [3009.0, 40.0], [3009.0, 49.0]]),)),
    "ellipse": Ellipse(3000, 40, 5, 3, 20),
    "line": Stroke(np.array([[3000.0, 40.0], [3006.0, 43.0]]), 3),
    "mask": Raster(np.ones((9, 9), np.bool_), 3000, 40),
    "mask of the picture": Raster(np.pad(np.ones((9, 9), np.bool_), ((40, 4047), (3000, 1087)))),
}


@pytest.mark.parametrize("name", SMALL_SHAPES)
def test_small_shape_is_drawn_on_a_small_part_of_a_large_picture(name: str) -> None:
    """So that a file of many thousand costs what they cover."""
    peak = peak_bytes(lambda: SMALL_SHAPES[name].draw(Frame(4096, 4096, 4096, 4096)))
    assert peak < 1_000_000


LARGE_SHAPES: dict[str, tuple[Shape, float]] = {
    "ellipse": (Ellipse(512, 512, 500, 400, 30), np.pi * 500 * 400),
    "line": (Stroke(np.array([[100.0, 100.0], [700.0, 900.0]]), 50.0), 1000 * 50 + np.pi * 25**2),
}


@pytest.mark.parametrize("name", LARGE_SHAPES)
def test_large_shape_takes_the_memory_of_a_few_masks(name: str) -> None:
    shape, area = LARGE_SHAPES[name]
    areas: list[int] = []
    peak = peak_bytes(lambda: areas.append(int(shape.draw(Frame(1024, 1024, 1024, 1024)).inside.sum())))
    assert areas == pytest.approx([area], rel=0.001)
    assert peak < 8 * 1024 * 1024


LONG = "x" * 1_000_000


def long_category(path: Path) -> None:
    read_coco(full_coco(path, 300, 4, name=LONG), None, NOTHING)


def long_image(path: Path) -> None:
    boxes = ['<box label="a" xtl="1" ytl="1" xbr="2" ybr="2"/>'] * 300
    path.write_text(cvat_file(path, cvat_image(0, *boxes)).read_text().replace("00.png", LONG))
    read_cvat(path, None, NOTHING)


def long_skeleton(path: Path) -> None:
    joints = '<points label="a" points="1,1"/>' * 300
    cvat_file(path, cvat_image(0, f'<skeleton label="{LONG}">{joints}</skeleton>'))
    read_cvat(path, None, NOTHING)


@pytest.mark.parametrize("read", [long_category, long_image, long_skeleton])
def test_long_name_is_not_copied_for_every_shape(tmp_path: Path, read: Callable[[Path], None]) -> None:
    assert peak_bytes(lambda: read(tmp_path / "labels")) < 100 * len(LONG)


def deep_meta(path: Path) -> None:
    path.write_text(f"<annotations>{'<meta>' * 200_000}{'</meta>' * 200_000}</annotations>")
    read_cvat(path, None, NOTHING)


def long_bones(path: Path) -> None:
    names = [f"joint {index}" for index in range(50_000)]
    full_coco(path, 1, 4, keypoints=names, skeleton=[[index + 1, 1] for index in range(50_000)])
    assert len(read_coco(path, None, NOTHING).skeleton) == 50_000


@pytest.mark.parametrize("work", [deep_meta, long_bones])
def test_time_grows_with_the_file_and_not_with_its_square(tmp_path: Path, work: Callable[[Path], None]) -> None:
    assert seconds_of(lambda: work(tmp_path / "labels")) < 60  # with its square it was ten minutes


def test_long_attribute_is_read_as_fast_as_many_short_ones(tmp_path: Path) -> None:
    one, many = (
        cvat_file(tmp_path / name, cvat_image(0, *[f'<tag label="{"x" * (size << 20)}"/>'] * (32 // size)))
        for name, size in (("one", 32), ("many", 1))
    )
    short = min(seconds_of(lambda: read_cvat(many, None, NOTHING)) for _ in range(2))
    assert seconds_of(lambda: read_cvat(one, None, NOTHING)) < 8 * short


def seconds_of(work: Callable[[], object]) -> float:
    """Of the processor, whatever else runs."""
    start = time.process_time()
    work()
    return time.process_time() - start
