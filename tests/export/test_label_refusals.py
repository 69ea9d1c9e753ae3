"""Label files that are damaged, hostile or of other pictures: each is refused by name and leaves nothing behind."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from labelmint_export.cli import main
from tests.export.label_files import (
    HEIGHT,
    WIDTH,
    coco_record,
    cvat_file,
    cvat_image,
    labelme_record,
    labelme_shape,
    make_pictures,
    truth,
    write_json,
)

# pycocotools has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Case = tuple[Callable[[Path], object], tuple[object, ...], str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "to-draw")


def labelme(*shapes: dict[str, Any], **more: object) -> Callable[[Path], object]:
    return lambda path: write_json(path / "00.json", labelme_record("00.png", *shapes) | more)


def shape(kind: str, points: object, **more: object) -> Callable[[Path], object]:
    return labelme(labelme_shape("cat", kind, points, **more))


def coco(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        record = coco_record(truth())
        change(record)
        write_json(path / "c.json", record)

    return make


def annotation(**fields: object) -> Callable[[Path], object]:
    return coco(lambda record: record["annotations"][0].update(fields))


def joints(numbers: object, **category: object) -> Callable[[Path], object]:
    def change(record: dict[str, Any]) -> None:
        record["categories"][1].update({"keypoints": ["nose", "tail"]} | category)
        record["annotations"][0]["keypoints"] = numbers

    return coco(change)


def cvat(*shapes: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Callable[[Path], object]:
    return lambda path: cvat_file(path / "c.xml", cvat_image(0, *shapes, size=size))


def text(name: str, contents: str | bytes) -> Callable[[Path], object]:
    data = contents if isinstance(contents, bytes) else contents.encode()
    return lambda path: (path / name).write_bytes(data)


def png(mask: np.ndarray[Any, np.dtype[Any]], mode: str | None = None) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        image = Image.fromarray(mask)
        (image if mode is None else image.convert(mode)).save(path / "00.png")

    return make


def npy(array: np.ndarray[Any, np.dtype[Any]]) -> Callable[[Path], object]:
    return lambda path: np.save(path / "image_mask0.npy", array, allow_pickle=True)


def npy_that_claims(shape: tuple[int, ...]) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with (path / "image_mask0.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": shape})
            file.write(b"\0" * 64)

    return make


def archive(path: Path) -> None:
    with (path / "image_mask0.npy").open("wb") as file:
        np.savez(file, GREY)


def device(name: str) -> Callable[[Path], object]:
    """A link, as an archive may hold; that to /dev/zero could be read for ever."""
    return lambda path: (path / name).symlink_to("/dev/null")


def long_text(path: Path) -> None:
    """What an editor may write: a history of megabytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("history", "a" * (2 << 20), zip=True)
    Image.fromarray(GREY).save(path / "00.png", pnginfo=info)


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
BOX = labelme_shape("cat", "rectangle", [[3, 4], [19, 15]])
UNKNOWN = labelme_shape("Cat ", "rectangle", [[3, 4], [19, 15]])
GREY = np.zeros((HEIGHT, WIDTH), np.uint8)
OTHER_PNG = base64.b64encode(b"\x89PNG no picture").decode()

BAD: dict[str, Case] = {
    # labelme
    "labelme: two points": (
        shape("polygon", [[1, 1], [5, 5]]),
        (),
        "(polygon 'cat') has 2 points, expected at least 3",
    ),
    "labelme: not finite": (
        shape("polygon", [[1, 1], [5, float("nan")], [3, 3]]),
        (),
        "points is nan, expected a finite",
    ),
    "labelme: infinite": (shape("rectangle", [[1, 1], [float("inf"), 5]]), (), "points is inf, expected a finite"),
    "labelme: far away": (shape("polygon", [[1, 1], [1e300, 5], [3, 3]]), (), "points is 1e+300, expected a finite"),
    "labelme: beyond floats": (
        shape("polygon", [[1, 1], [10**400, 5], [3, 3]]),
        (),
        "expected a finite number of pixels",
    ),
    "labelme: huge mask": (shape("mask", [[0, 0], [99999, 99999]], mask=OTHER_PNG), (), "have 100000 x 100000 pixels"),
    "cvat: deep": (text("c.xml", "<annotations>" + "<a>" * 200_000), (), "c.xml cannot be read as XML"),
    "labelme: no number": (shape("polygon", [[1, 1], ["5", 5], [3, 3]]), (), "points is '5', expected a number"),
    "labelme: three places": (shape("polygon", [[1, 1, 1], [5, 5, 1], [3, 3, 1]]), (), "expected [x, y]"),
    "labelme: points no list": (shape("polygon", "1,1"), (), "points is '1,1', expected a list"),
    "labelme: circle of no size": (shape("circle", [[5, 5], [5, 5]]), (), "has radius 0"),
    "labelme: circle of one point": (shape("circle", [[5, 5]]), (), "has 1 points, expected 2"),
    "labelme: line": (shape("linestrip", [[1, 1], [5, 5]]), (), "is a line, which has no area; give its thickness"),
    "labelme: kind no text": (
        labelme(labelme_shape("cat", "polygon", [[1, 1], [5, 5], [3, 3]]) | {"shape_type": 3}),
        (),
        "shape_type is 3, expected a text",
    ),
    "labelme: kind": (shape("star", [[1, 1]]), (), "is a star, expected polygon, rectangle"),
    "labelme: mask no base64": (shape("mask", [[1, 1], [5, 5]], mask="%%"), (), "the mask is no PNG in base64"),
    "labelme: mask no PNG": (shape("mask", [[1, 1], [5, 5]], mask=OTHER_PNG), (), "the mask is no PNG in base64"),
    "labelme: mask missing": (shape("mask", [[1, 1], [5, 5]]), (), "mask is None, expected a text"),
    "labelme: unknown": (labelme(UNKNOWN), (), "unknown labels, 1 in all: 'Cat ' ("),
    "labelme: point of a class": (shape("point", [[1, 1]]), (), "'cat' ("),
    "labelme: area of a keypoint": (labelme(labelme_shape("nose", "rectangle", [[1, 1], [5, 5]])), (), "'nose' ("),
    "labelme: point twice": (
        labelme(BOX, *[labelme_shape("nose", "point", [[1, 1]])] * 2),
        (),
        "00.png has nose twice; keep one",
    ),
    "labelme: point outside": (
        labelme(BOX, labelme_shape("nose", "point", [[24.5, 1]])),
        (),
        "lies at (24.5, 1), outside the 24 x 20 picture",
    ),
    "labelme: other size": (
        labelme(BOX, imageHeight=40, imageWidth=48),
        (),
        "were drawn on 48 x 40 pixels, the picture has 24 x 20; if it was enlarged",
    ),
    "labelme: cropped": (labelme(BOX, imageHeight=40, imageWidth=40), ("--rescale",), "which is no enlarged 24 x 20"),
    "labelme: huge": (
        labelme(BOX, imageHeight=10**9, imageWidth=10**9),
        ("--rescale",),
        "is said to have 1000000000 x",
    ),
    "labelme: size no number": (labelme(BOX, imageHeight="20"), (), "imageHeight is '20', expected an integer"),
    "labelme: no shapes": (text("00.json", "{}"), (), "00.json holds [], expected shapes as in LabelMe's files"),
    "labelme: shape no object": (text("00.json", '{"shapes": [3]}'), (), "shapes[0] is 3, expected an object"),
    "labelme: no JSON": (text("00.json", "{"), (), "00.json cannot be read as JSON"),
    "labelme: nested": (text("00.json", "[" * 200_000), (), "00.json cannot be read as JSON"),
    "labelme: nothing drawn": (
        labelme(),
        (),
        "none of the 3 pictures has a labelled pixel; the labels are for these pictures, but hold no areas (00.json)",
    ),
    "labelme: other pictures": (
        lambda path: write_json(path / "a.json", labelme_record("a.png", BOX)),
        (),
        "the labels are for a.png, the pictures are 00, 01, 02",
    ),
    "labelme: picture twice": (
        lambda path: [write_json(path / f"{n}.json", labelme_record("00.jpg", BOX)) for n in "ab"],
        (),
        "has labels for 00 twice, as 00.jpg (a.json) and 00.jpg (b.json); keep one",
    ),
    "labelme: all skipped": (labelme(BOX), ("--skip", "cat"), "the shapes drawn on them are skipped, ignored"),
    # coco
    "coco: two points": (annotation(segmentation=[[1, 1, 5, 5]]), (), "a polygon has 2 points, expected at least 3"),
    "coco: odd": (annotation(segmentation=[[1, 1, 5, 5, 7]]), (), "expected an even number of coordinates"),
    "coco: not finite": (annotation(segmentation=[[1, 1, 5, 5, 7, float("nan")]]), (), "segmentation is nan"),
    "coco: flat": (annotation(segmentation=[1, 1, 5, 5, 7, 7]), (), "a polygon is no list of x, y"),
    "coco: box alone": (annotation(segmentation=[], bbox=[1, 1, 5, 5]), (), "a box is no mask, export the masks"),
    "coco: runs too short": (annotation(segmentation={"size": [20, 24], "counts": [5, 5]}), (), "add up to 10 pixels"),
    "coco: huge runs": (
        annotation(segmentation={"size": [20, 24], "counts": [10**15]}),
        (),
        "a run of the mask is no integer from 0 to 480",
    ),
    "coco: huge size": (
        annotation(segmentation={"size": [10**6, 10**6], "counts": [10**12]}),
        (),
        "the size of the RLE is [1000000, 1000000], expected [20, 24]",
    ),
    "coco: swapped size": (annotation(segmentation={"size": [24, 20], "counts": [480]}), (), "expected [20, 24]"),
    "coco: huge picture": (
        coco(lambda r: r["images"][0].update(height=10**9, width=10**9)),
        (),
        "is said to have 1000000000 x 1000000000 pixels",
    ),
    "coco: empty mask": (annotation(segmentation={"size": [20, 24], "counts": [480]}), (), "is an empty mask"),
    "coco: other size": (
        coco(
            lambda r: [r["images"][0].update(height=10), r["annotations"][0].update(segmentation=[[1, 1, 9, 1, 9, 9]])]
        ),
        (),
        "expected [10, 24], rows and columns of the picture",
    ),
    "coco: unknown picture": (annotation(image_id=99), (), "image_id is 99, which the file does not describe"),
    "coco: unknown category": (annotation(category_id=99), (), "category_id is 99, which the file does not describe"),
    "coco: id twice": (coco(lambda r: r["images"][1].update(id=10)), (), "has id 10 twice in images"),
    "coco: no file name": (coco(lambda r: r["images"][1].pop("file_name")), (), "file_name is None"),
    "coco: picture twice": (coco(lambda r: r["images"][1].update(file_name="b/00.png")), (), "has labels for 00 twice"),
    "coco: keypoints too few": (joints([1, 1, 2]), (), "has 3 numbers in keypoints, expected 6"),
    "coco: visibility": (joints([1, 1, 3, 0, 0, 0]), (), "the visibility of nose is 3, expected 0, 1 or 2"),
    "coco: keypoint not finite": (joints([float("inf"), 1, 2, 0, 0, 0]), (), "x of nose is inf"),
    "coco: keypoints without names": (joints([1, 1, 2], keypoints=[]), (), "its category lists no names of keypoints"),
    "coco: skeleton": (joints([1, 1, 2, 0, 0, 0], skeleton=[[0, 1]]), (), "skeleton holds [0, 1], expected two"),
    "coco: keypoint unknown": (joints([1, 1, 2, 0, 0, 0], keypoints=["paw", "tail"]), (), "'paw' ("),
    "coco: offset": (coco(lambda r: None), ("--keypoint-offset", 5), "keypoint_offset is 5.0"),
    # cvat
    "cvat: laughs": (text("c.xml", f"{LAUGHS}<annotations>&b;</annotations>"), (), "entities or a document type"),
    "cvat: file": (text("c.xml", f"{OUTSIDE}<annotations>&x;</annotations>"), (), "entities or a document type"),
    "cvat: type": (text("c.xml", '<!DOCTYPE a SYSTEM "a.dtd"><annotations/>'), (), "entities or a document type"),
    "cvat: no XML": (text("c.xml", "<annotations>"), (), "c.xml cannot be read as XML"),
    "cvat: bytes": (text("c.xml", b"\xff\xfe\x00<"), (), "c.xml cannot be read as XML"),
    "cvat: encoding": (
        text("c.xml", '<?xml version="1.0" encoding="klingon"?><annotations/>'),
        (),
        "cannot be read as XML",
    ),
    "cvat: other": (text("c.xml", "<html/>"), (), "export it from CVAT as 'CVAT for images 1.1'"),
    "cvat: video": (text("c.xml", '<annotations><track id="0"/></annotations>'), (), "is no list of annotated images"),
    "cvat: two points": (cvat('<polygon label="cat" points="1,1;2,2"/>'), (), "has 2 points, expected at least 3"),
    "cvat: not finite": (cvat('<polygon label="cat" points="1,1;2,2;nan,3"/>'), (), "points is nan, expected a finite"),
    "cvat: no number": (cvat('<polygon label="cat" points="1,1;2,2;a,3"/>'), (), "points is 'a', expected a number"),
    "cvat: three places": (cvat('<polygon label="cat" points="1,1,1;2,2;3,3"/>'), (), "expected x,y;x,y"),
    "cvat: corner missing": (cvat('<box label="cat" xtl="1" ytl="1" xbr="2"/>'), (), "ybr is '', expected a number"),
    "cvat: radius": (cvat('<ellipse label="cat" cx="5" cy="5" rx="0" ry="3"/>'), (), "has radii 0.0, 3.0"),
    "cvat: cuboid": (cvat('<cuboid label="cat" xtl1="1"/>'), (), "is a cuboid, expected polygon, box"),
    "cvat: line": (cvat('<polyline label="cat" points="1,1;5,5"/>'), (), "give its thickness with --line-width"),
    "cvat: mask outside": (
        cvat('<mask label="cat" rle="0, 4" left="23" top="0" width="2" height="2"/>'),
        (),
        "reaches out of the 24 x 20 picture",
    ),
    "cvat: mask too short": (
        cvat('<mask label="cat" rle="0, 3" left="2" top="0" width="2" height="2"/>'),
        (),
        "add up to 3 pixels, expected 4",
    ),
    "cvat: mask no runs": (
        cvat('<mask label="cat" rle="" left="2" top="0" width="2" height="2"/>'),
        (),
        "expected integers with commas between",
    ),
    "cvat: huge": (cvat(size=(10**5, 10**5)), (), "is said to have 100000 x 100000 pixels"),
    "cvat: other size": (
        cvat('<box label="cat" xtl="1" ytl="1" xbr="2" ybr="2"/>', size=(21, 24)),
        (),
        "were drawn on 24 x 21 pixels, the picture has 24 x 20",
    ),
    "cvat: unknown": (cvat('<box label="cow" xtl="1" ytl="1" xbr="2" ybr="2"/>'), (), "'cow' ("),
    # masks
    "png: other size": (png(GREY.T), (), "were drawn on 20 x 24 pixels, the picture has 24 x 20"),
    "png: unknown value": (png(GREY + 3), (), "00.png: the value 3 of 480 pixels, the first in row 0, column 0"),
    "png: unknown colour": (png(np.dstack([GREY] * 3)), (), "the colour #000000 of 480 pixels"),
    "png: colours without palette": (
        png(np.dstack([GREY] * 3)),
        ("--palette", "cat=1"),
        "is in colours; say with --palette what they stand for",
    ),
    "png: numbers with colours": (
        png(GREY),
        ("--palette", "cat=#000000"),
        "has mode L, expected an indexed, grey or RGB",
    ),
    "png: transparent": (png(np.dstack([GREY] * 4)), (), "is transparent in places"),
    "png: empty": (png(GREY + 255), (), "none of the 3 pictures has a labelled pixel"),
    "png: endless text": (long_text, (), "00.png cannot be read as a picture"),
    "png: damaged": (text("00.png", b"\x89PNG"), (), "00.png cannot be read as a picture"),
    "npy: objects": (npy(np.array([[{}]], dtype=object)), (), "cannot be read as .npy"),
    "npy: claims": (npy_that_claims((10**9, 10**9)), (), "cannot be read as .npy"),
    "npy: cut": (text("image_mask0.npy", b"\x93NUMPY\x01\x00"), (), "cannot be read as .npy"),
    "npy: pickle": (text("image_mask0.npy", b"cos\nsystem\n(S'true'\ntR."), (), "cannot be read as .npy"),
    "npy: fractions": (npy(GREY + 0.5), (), "fractions or numbers that are not finite"),
    "npy: not finite": (npy(GREY + np.nan), (), "fractions or numbers that are not finite"),
    "npy: negative": (npy(GREY.astype(np.int64) - 1), (), "the value -1 of 480 pixels"),
    "npy: several": (
        archive,
        (),
        "holds several arrays",
    ),
    "npy: shape": (npy(np.zeros((2, HEIGHT, WIDTH), np.uint8)), (), "holds uint8 [2, 20, 24], expected numbers [h, w]"),
    "npy: text": (npy(np.array([["a"]])), (), "expected numbers [h, w]"),
    "npy: palette": (npy(GREY), ("--palette", "cat=#010203"), "hold numbers, but the palette holds colours"),
    # devices, which may never end
    "labelme: device": (device("00.json"), (), "00.json cannot be read as JSON (it is no ordinary file)"),
    "cvat: device": (device("c.xml"), (), "c.xml cannot be read (it is no ordinary file)"),
    "png: device": (device("00.png"), (), "00.png cannot be read as a picture (it is no ordinary file)"),
    # settings
    "nothing": (lambda path: None, (), "holds no labels that are known"),
    "other format": (labelme(BOX), ("--format", "cvat"), "holds no .xml files, expected labels in the format cvat"),
    "rename": (labelme(BOX), ("--rename", "cat"), "--rename has 'cat', expected LABEL=NAME"),
    "rename to nothing known": (labelme(BOX), ("--rename", "a=cow"), "'a' is to become 'cow', expected one of"),
    "background": (labelme(BOX), ("--background", "cow"), "background is 'cow'"),
    "area": (labelme(BOX), ("--min-area", -1), "min_area is -1"),
    "line width": (labelme(BOX), ("--line-width", 0), "line_width is 0.0"),
    "palette": (labelme(BOX), ("--palette", "cat"), "palette has 'cat', expected NAME=NUMBER"),
    "palette value": (labelme(BOX), ("--palette", "cat=red"), "palette gives 'red' to 'cat'"),
    "palette twice": (labelme(BOX), ("--palette", "cat=1", "ear=1"), "palette gives 1 to 'cat' and 'ear'"),
    "palette of both": (labelme(BOX), ("--palette", "cat=1", "ear=#010101"), "numbers and colours"),
}


def refuse(pictures: Path, capsys: pytest.CaptureFixture[str], *options: object) -> str:
    folder = pictures.parent
    arguments = ["import-annotations", "--pictures", pictures, "--out", folder / "out", "--labels", *options]
    assert main([str(argument) for argument in arguments]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["labels", "to-draw"]
    return capsys.readouterr().err


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_refused_by_name(pictures: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    damage, options, message = BAD[case]
    (pictures.parent / "labels").mkdir()
    damage(pictures.parent / "labels")
    assert message in refuse(pictures, capsys, pictures.parent / "labels", *options)


def test_areas_from_two_files_are_refused(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = pictures.parent / "labels"
    write_json(labels / "a" / "00.json", labelme_record("00.png", BOX))
    write_json(labels / "b.json", coco_record(truth()))
    assert "00.png has areas in" in refuse(pictures, capsys, labels / "a", labels / "b.json")


def test_labels_that_are_missing_are_refused(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures.parent / "labels").mkdir()
    assert "does not exist; give a file or folder" in refuse(pictures, capsys, pictures.parent / "nowhere")


@pytest.mark.parametrize("place", [".", "c.json/report.json"])
def test_report_that_cannot_be_written_is_refused_before_the_folder_is(
    pictures: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    labels = write_json(pictures.parent / "labels" / "c.json", coco_record(truth()))
    report = labels.parent / place
    assert f"--report is {report}, " in refuse(pictures, capsys, labels, "--report", report)


@pytest.mark.parametrize(
    ("place", "problem"), [("no", "does not exist"), ("c.json", "is a file"), (".", "holds no classes.json")]
)
def test_folder_without_pictures_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, problem: str
) -> None:
    labels, folder = write_json(tmp_path / "c.json", coco_record(truth())), tmp_path / place
    arguments = ["import-annotations", "--pictures", folder, "--out", tmp_path / "out", "--labels", labels]
    assert main([str(argument) for argument in arguments]) == 1
    assert list(tmp_path.iterdir()) == [labels]
    error = capsys.readouterr().err
    assert f"{folder} {problem}, expected a folder that sample" in error
    assert error.endswith("; give its path\n")


def test_json_without_labels_is_refused(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write_json(pictures.parent / "labels" / "names.json", {"classes": []})
    assert "holds ['classes'], expected shapes as in LabelMe's files" in refuse(pictures, capsys, labels)


def test_pictures_beside_others_are_refused(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures.parent / "labels").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(pictures / "more.png")
    assert "holds 4 pictures" in refuse(pictures, capsys, pictures.parent / "labels")


def test_folder_that_holds_something_is_not_written_to(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(pictures.parent / "labels" / "00.json", labelme_record("00.png", BOX))
    arguments = [
        "import-annotations",
        "--pictures",
        pictures,
        "--out",
        pictures,
        "--labels",
        pictures.parent / "labels",
    ]
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert main([str(argument) for argument in arguments]) == 1
    assert "is not empty; give a new folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == before
