"""The same labels in every format give the same masks; what does not fit is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmint_export.annotations import AnnotatedSet, read_annotations
from labelmint_export.cli import main
from tests.export.label_files import (
    CLASSES,
    HEIGHT,
    KEYPOINTS,
    PALETTE,
    WIDTH,
    coco_record,
    cvat_file,
    cvat_image,
    cvat_mask,
    labelme_mask,
    labelme_record,
    labelme_shape,
    make_pictures,
    truth,
    write_json,
)

# pycocotools has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BOX = labelme_shape("cat", "rectangle", [[3, 4], [19, 15]])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "to-draw")


def arguments_of(pictures: Path, *labels: Path | str) -> list[str]:
    out = str(pictures.parent / "out")
    return [
        "import-annotations", "--pictures", str(pictures), "--out", out, "--json", "--labels", *map(str, labels)
    ]  # fmt: skip


def run(pictures: Path, *labels: Path | str, options: tuple[object, ...] = ()) -> tuple[AnnotatedSet, dict[str, Any]]:
    """Import; gives the folder that was written, read again, and the report."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*arguments_of(pictures, *labels), *map(str, options)]) == 0
    return read_annotations(pictures.parent / "out"), json.loads(printed.getvalue())


def refusal(
    capsys: pytest.CaptureFixture[str], pictures: Path, *labels: Path | str, options: tuple[object, ...] = ()
) -> str:
    assert main([*arguments_of(pictures, *labels), *map(str, options)]) == 1
    assert not (pictures.parent / "out").exists()
    assert [path for path in pictures.parent.rglob("*") if ".building-" in path.name] == []
    return capsys.readouterr().err


# --- every format -----------------------------------------------------------------------------------------------------


def ring(inside: np.ndarray[Any, np.dtype[np.bool_]]) -> list[list[int]]:
    """The corners of a mask that is a rectangle."""
    rows, columns = np.nonzero(inside)
    top, left, bottom, right = int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def whole(mask: np.ndarray[Any, np.dtype[np.uint8]], value: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The area that a person would draw: the ear lies on the cat."""
    return mask >= value


def write_labelme(folder: Path, kind: str) -> Path:
    for index, mask in enumerate(truth()):
        shapes = []
        for value in (1, 2):
            corners = ring(whole(mask, value))
            if kind == "polygon":
                shapes.append(labelme_shape(CLASSES[value], kind, corners))
            elif kind == "rectangle":
                shapes.append(labelme_shape(CLASSES[value], kind, [corners[2], corners[0]]))
            elif kind == "kindless":
                drawn = labelme_shape(CLASSES[value], "polygon", corners)
                shapes.append({name: part for name, part in drawn.items() if name != "shape_type"})
            elif kind == "null":
                shapes.append(labelme_shape(CLASSES[value], "polygon", corners) | {"shape_type": None})
            else:
                shapes.append(labelme_mask(CLASSES[value], mask == value))
        write_json(folder / f"{index:02d}.json", labelme_record(f"..\\to-draw\\{index:02d}.png", *shapes))
    return folder


def write_coco(path: Path, kind: str) -> Path:
    record = coco_record(truth(), compressed=kind != "uncompressed")
    if kind == "polygon":
        for entry in record["annotations"]:
            corners = ring(whole(truth()[entry["image_id"] - 10], entry["category_id"] - 5))
            entry["segmentation"] = [[value for corner in corners for value in corner]]
    return write_json(path, record)


def write_cvat(path: Path, kind: str) -> Path:
    images = []
    for index, mask in enumerate(truth()):
        shapes = []
        for value in (2, 1):  # the z_order decides, not the file's
            corners = ring(whole(mask, value))
            (left, top), (right, bottom) = corners[0], corners[2]
            if kind == "mask":
                shapes.append(cvat_mask(CLASSES[value], mask == value))
            elif kind == "box":
                box = f'xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"'
                shapes.append(f'<box label="{CLASSES[value]}" occluded="0" {box} z_order="{value}"/>')
            else:
                text = ";".join(f"{x}.00,{y}.00" for x, y in corners)
                shapes.append(f'<polygon label="{CLASSES[value]}" points="{text}" z_order="{value}"/>')
        images.append(cvat_image(index, *shapes))
    return cvat_file(path, *images)


def write_masks(folder: Path, kind: str) -> Path:
    folder.mkdir()
    for index, mask in enumerate(truth()):
        if kind == "npy":
            np.save(folder / f"image_mask{index}.npy", mask.astype(np.float64)[..., None])
            continue
        if kind == "colours":
            image = Image.fromarray(np.array(PALETTE, np.uint8)[mask])
        elif kind == "sixteen bits":
            image = Image.fromarray(mask.astype(np.uint16))
        else:
            image = Image.fromarray(mask)
            if kind == "indexed":
                image.putpalette([7, 7, 7] * 256)
        image.save(folder / f"{index:02d}_mask.png")
    return folder


def write(folder: Path, name: str) -> Path:
    """Write the labels in the format and manner that a name says."""
    kind, _, manner = name.partition(" ")
    if kind == "labelme":
        return write_labelme(folder / "l", manner)
    if kind == "coco":
        return write_coco(folder / "c.json", manner)
    if kind == "cvat":
        return write_cvat(folder / "c.xml", manner)
    return write_masks(folder / "m", manner or kind)


MANNERS = (
    *("labelme polygon", "labelme rectangle", "labelme mask", "labelme kindless", "labelme null"),
    *("coco polygon", "coco compressed", "coco uncompressed"),
    *("cvat polygon", "cvat box", "cvat mask", "png grey", "png indexed", "png sixteen bits", "png colours", "npy"),
)


@pytest.mark.parametrize("name", MANNERS)
def test_same_labels_give_the_same_masks(pictures: Path, tmp_path: Path, name: str) -> None:
    annotated, report = run(pictures, write(tmp_path, name))
    assert np.array_equal(annotated.masks, truth())
    assert annotated.schema.class_names == CLASSES
    assert report["sources"][0]["format"] == name.partition(" ")[0]
    for index, class_name in enumerate(CLASSES):
        assert report["classes"][class_name] == {
            "pixels": int((truth() == index).sum()),
            "share": round(float((truth() == index).mean()), 6),
            "pictures": 3,
        }
    assert report["pictures_without_labels"] == report["labels_without_pictures"] == report["classes_never_used"] == []
    assert report["keypoints_never_used"] == list(KEYPOINTS)


@pytest.mark.parametrize("name", ["labelme polygon", "coco compressed", "cvat box", "png grey", "png colours", "npy"])
def test_format_that_was_named_is_the_one_that_is_found(pictures: Path, tmp_path: Path, name: str) -> None:
    annotated, _ = run(pictures, write(tmp_path, name), options=("--format", name.partition(" ")[0]))
    assert np.array_equal(annotated.masks, truth())


def test_pictures_keep_names_latents_and_order(pictures: Path, tmp_path: Path) -> None:
    """Picture 01 has no labels: the others stay with the latents that painted them."""
    folder = write_labelme(tmp_path / "l", "polygon")
    (folder / "01.json").unlink()
    annotated, report = run(pictures, folder)
    assert annotated.names == ("00", "02")
    assert np.array_equal(annotated.masks, truth()[[0, 2]])
    assert annotated.ws[:, 0, 0].tolist() == [0.0, 12.0]
    assert annotated.z[:, 0].tolist() == [0.0, 12.0]
    for name, picture in zip(annotated.names, annotated.pictures, strict=True):
        assert np.array_equal(np.asarray(Image.open(pictures / f"{name}.png")), picture)
    assert report["pictures"] == ["00", "02"]
    assert report["pictures_without_labels"] == ["01"]
    assert report["pairs"] == {"00": [str(folder / "00.json")], "02": [str(folder / "02.json")]}


def test_labels_drawn_in_the_folder_of_the_pictures_are_found(pictures: Path) -> None:
    write_labelme(pictures, "polygon")
    annotated, _ = run(pictures, pictures)
    assert np.array_equal(annotated.masks, truth())


def test_numbers_of_datasetgan_are_the_numbers_of_the_pictures(pictures: Path, tmp_path: Path) -> None:
    """Mask i belongs to picture i, also where there are ten and names sort otherwise."""
    many = make_pictures(tmp_path / "many", 12)
    (tmp_path / "m").mkdir()
    for index in range(12):
        mask = np.zeros((HEIGHT, WIDTH), np.int32)
        mask[0, index] = 1
        np.save(tmp_path / "m" / f"image_mask{index}.npy", mask)
    annotated, _ = run(many, tmp_path / "m")
    assert np.nonzero(annotated.masks[:, 0])[1].tolist() == list(range(12))


UPLOADED = ("images\\3f2a1b9c-{}.png", "{}_png.rf.0123456789abcdef0123456789abcdef.jpg")


@pytest.mark.parametrize("name", UPLOADED)
def test_names_that_programs_give_to_uploaded_pictures_are_known(pictures: Path, tmp_path: Path, name: str) -> None:
    record = coco_record(truth())
    for index, image in enumerate(record["images"]):
        image["file_name"] = name.format(f"{index:02d}")
    annotated, report = run(pictures, write_json(tmp_path / "result.json", record))
    assert np.array_equal(annotated.masks, truth())
    assert report["labels_without_pictures"] == []


def rename_first(pictures: Path, name: str) -> None:
    """Give picture 00 another name that sorts first, as a photograph that was inverted has its own."""
    for ending in (".png", ".mask.png", ".json"):
        (pictures / f"00{ending}").rename(pictures / f"{name}{ending}")


def test_name_of_a_picture_may_end_like_that_of_a_mask(pictures: Path, tmp_path: Path) -> None:
    rename_first(pictures, "00_mask")
    annotated, _ = run(pictures, write_masks(tmp_path / "m", "grey"))
    assert annotated.names == ("00_mask", "01", "02")
    assert np.array_equal(annotated.masks, truth())


def test_accents_may_be_written_apart(pictures: Path, tmp_path: Path) -> None:
    rename_first(pictures, unicodedata.normalize("NFD", "00ä"))
    write_json(tmp_path / "l" / "a.json", labelme_record(unicodedata.normalize("NFC", "00ä.png"), BOX))
    annotated, _ = run(pictures, tmp_path / "l")
    assert (annotated.masks[0] == 1).sum() == 16 * 11


def test_hidden_files_are_not_looked_at(pictures: Path, tmp_path: Path) -> None:
    """macOS puts them beside every file on disks of other systems."""
    folder = write_masks(tmp_path / "m", "grey")
    for place in (pictures / "._00.png", pictures / "._00.mask.png", folder / "._00_mask.png", folder / "._00.json"):
        place.write_bytes(b"\0\5\x16\7")
    annotated, _ = run(pictures, folder)
    assert np.array_equal(annotated.masks, truth())
    (pictures.parent / "out" / "._00.mask.png").write_bytes(b"\0\5\x16\7")
    assert np.array_equal(read_annotations(pictures.parent / "out").masks, truth())


def test_digits_of_all_scripts_may_stand_in_names(pictures: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "l" / "²1.json", labelme_record("00.png", BOX))
    annotated, _ = run(pictures, tmp_path / "l")
    assert annotated.names == ("00",)


def test_mark_at_the_beginning_of_a_text_is_no_part_of_it(pictures: Path, tmp_path: Path) -> None:
    path = write_json(tmp_path / "c.json", coco_record(truth()))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    palette = tmp_path / "labelmap.txt"
    palette.write_bytes("\ufeffground:1,2,3::\r\ncat:4,5,6::\r\near:7,8,9::\r\n".encode())
    annotated, _ = run(pictures, path, options=("--palette", palette))
    assert np.array_equal(annotated.masks, truth())


def test_picture_without_annotations_may_have_no_size(pictures: Path, tmp_path: Path) -> None:
    """Label Studio writes null for pictures that nobody has drawn on."""
    record = coco_record(truth())
    record["images"].append({"id": 99, "file_name": "77.png", "height": None, "width": None})
    annotated, report = run(pictures, write_json(tmp_path / "c.json", record))
    assert np.array_equal(annotated.masks, truth())
    assert report["labels_without_pictures"] == ["77.png"]


def test_labels_without_pictures_are_named_and_left_out(pictures: Path, tmp_path: Path) -> None:
    folder = write_labelme(tmp_path / "l", "polygon")
    write_json(folder / "77.json", labelme_record("77.png", BOX))
    annotated, report = run(pictures, folder)
    assert len(annotated) == 3
    assert report["labels_without_pictures"] == ["77.png"]


# --- order, background, names -----------------------------------------------------------------------------------------

EAR = labelme_shape("ear", "rectangle", [[5, 6], [8, 9]])


def drawn(pictures: Path, tmp_path: Path, *shapes: dict[str, Any], options: tuple[object, ...] = ()) -> Any:
    write_json(tmp_path / "l" / "00.json", labelme_record("00.png", *shapes))
    annotated, report = run(pictures, tmp_path / "l", options=options)
    return annotated.masks[0], report


@pytest.mark.parametrize(
    ("shapes", "overlap", "on_top"),
    [
        ((BOX, EAR), "file", 2),
        ((EAR, BOX), "file", 1),
        ((EAR, BOX), "smallest", 2),
        ((EAR, BOX), "classes", 2),
    ],
)
def test_order_decides_what_lies_on_top(
    pictures: Path, tmp_path: Path, shapes: tuple[dict[str, Any], ...], overlap: str, on_top: int
) -> None:
    mask, report = drawn(pictures, tmp_path, *shapes, options=("--overlap", overlap))
    assert mask[7, 6] == on_top
    assert report["overlap_pixels"] == 9
    assert len(report["covered_shapes"]) == (on_top == 1)


def test_what_no_shape_covers_is_background_unless_told_otherwise(pictures: Path, tmp_path: Path) -> None:
    mask, _ = drawn(pictures, tmp_path, EAR)
    assert mask[0, 0] == 0


@pytest.mark.parametrize(("options", "value"), [(("--background", "cat"), 1), (("--no-background",), 255)])
def test_background_is_what_was_asked_for(
    pictures: Path, tmp_path: Path, options: tuple[object, ...], value: int
) -> None:
    mask, report = drawn(pictures, tmp_path, EAR, options=options)
    assert mask[0, 0] == value
    assert (mask == value).sum() == HEIGHT * WIDTH - 9
    assert report["not_labelled_share"] == (round(1 - 9 / (HEIGHT * WIDTH), 6) if value == 255 else 0)


def test_labels_are_renamed_skipped_and_ignored(pictures: Path, tmp_path: Path) -> None:
    shapes = [
        labelme_shape("Katze", "rectangle", [[3, 4], [19, 15]]),
        labelme_shape("unsure", "rectangle", [[0, 0], [2, 3]]),
        labelme_shape("note", "rectangle", [[0, 0], [24, 20]]),
    ]
    options = ("--rename", "Katze=cat", "--ignore", "unsure", "--skip", "note")
    mask, report = drawn(pictures, tmp_path, *shapes, options=options)
    assert (mask == 1).sum() == 16 * 11
    assert (mask == 255).sum() == 6
    assert report["skipped_shapes"] == {"note": 1}


@pytest.mark.parametrize("kind", ["labelme", "coco", "cvat"])
def test_shapes_that_have_no_area_can_be_skipped(pictures: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "l").mkdir()
    if kind == "labelme":
        guide = labelme_shape("guide", "line", [[1, 1], [5, 5]])
        write_json(tmp_path / "l" / "00.json", labelme_record("00.png", BOX, guide))
    elif kind == "coco":
        record = coco_record(truth())
        record["categories"].append({"id": 77, "name": "guide"})
        record["annotations"].append({"image_id": 10, "category_id": 77, "segmentation": [], "bbox": [1, 1, 3, 3]})
        write_json(tmp_path / "l" / "c.json", record)
    else:
        box = '<box label="cat" xtl="3" ytl="4" xbr="19" ybr="15"/>'
        cvat_file(tmp_path / "l" / "c.xml", cvat_image(0, box, '<cuboid label="guide" xtl1="1"/>'))
    annotated, report = run(pictures, tmp_path / "l", options=("--skip", "guide"))
    assert (annotated.masks[0] > 0).sum() == 16 * 11
    assert report["skipped_shapes"] == {"guide": 1}


def test_classes_of_the_labels_may_replace_those_of_the_pictures(pictures: Path, tmp_path: Path) -> None:
    write_json(
        tmp_path / "l" / "00.json", labelme_record("00.png", labelme_shape("hat", "circle", [[12, 10], [12, 14]]))
    )
    annotated, _ = run(pictures, tmp_path / "l", options=("--classes", "rest", "hat", "--keypoints", "tip"))
    assert annotated.schema.class_names == ("rest", "hat")
    assert annotated.schema.keypoint_names == ("tip",)
    assert (annotated.masks[0] == 1).sum() == sum(
        (x - 11.5) ** 2 + (y - 9.5) ** 2 <= 16 for x in range(WIDTH) for y in range(HEIGHT)
    )


def test_lines_are_drawn_with_the_thickness_that_was_given(pictures: Path, tmp_path: Path) -> None:
    line = labelme_shape("cat", "linestrip", [[2, 5], [20, 5]])
    mask, _ = drawn(pictures, tmp_path, line, options=("--line-width", 2))
    assert (mask[4:6, 2:20] == 1).all()
    assert (mask == 1).sum() == 36 + 4  # round ends


def test_specks_are_dropped_and_counted(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    mask = truth()[0].copy()
    mask[0, 0] = mask[1, 1] = 2  # touch at a corner: two parts
    mask[18, 5:8] = 1
    Image.fromarray(mask).save(tmp_path / "m" / "00.png")
    annotated, report = run(pictures, tmp_path / "m", options=("--min-area", 3))
    assert report["specks"] == {"ear": {"num": 2, "pixels": 2}}
    assert annotated.masks[0][[0, 1], [0, 1]].tolist() == [255, 255]
    mask[[0, 1], [0, 1]] = 255
    assert np.array_equal(annotated.masks[0], mask)


def test_enlarged_pictures_are_brought_back(pictures: Path, tmp_path: Path) -> None:
    shapes = [labelme_shape("cat", "polygon", (4 * np.array(ring(truth()[0] > 0))).tolist())]
    shapes += [labelme_mask("ear", np.kron(truth()[0] == 2, np.ones((4, 4), np.bool_)).astype(np.bool_))]
    shapes += [labelme_shape("nose", "point", [[42, 30]])]
    write_json(tmp_path / "l" / "00.json", labelme_record("00.png", *shapes, size=(4 * HEIGHT, 4 * WIDTH)))
    annotated, report = run(pictures, tmp_path / "l", options=("--rescale",))
    assert np.array_equal(annotated.masks[0], truth()[0])
    assert annotated.keypoints[0, 0].tolist() == [10.5, 7.5, 1.0]
    assert report["rescaled_pictures"] == ["00.png"]


def test_mask_that_was_moved_by_half_a_pixel_keeps_its_size(pictures: Path, tmp_path: Path) -> None:
    shape = labelme_mask("cat", truth()[0] == 1)
    shape["points"] = [[x + 0.5, y + 0.5] for x, y in shape["points"]]
    mask, _ = drawn(pictures, tmp_path, shape)
    assert np.array_equal(mask == 1, np.roll(truth()[0] == 1, (1, 1), axis=(0, 1)))


def test_slivers_are_reported(pictures: Path, tmp_path: Path) -> None:
    sliver = labelme_shape("ear", "polygon", [[1.6, 3], [2.3, 3], [2.3, 9]])
    _, report = drawn(pictures, tmp_path, BOX, sliver)
    (where,) = report["shapes_without_pixels"]
    assert "00.json, shape 1 (polygon 'ear')" in where
    assert report["classes_never_used"] == ["ear"]


@pytest.mark.parametrize(
    "palette",
    [
        ("ground=#112233", "cat=#fe0102", "void=#000000"),
        ("palette.json", {"ground": "#112233", "cat": [254, 1, 2], "void": [0, 0, 0]}),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nground:17,34,51::\ncat:254,1,2::\nvoid:0,0,0::\n"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_colours_mean_what_the_palette_says(pictures: Path, tmp_path: Path, palette: Any, mode: str) -> None:
    if not palette[0].startswith("ground"):
        text = palette[1] if isinstance(palette[1], str) else json.dumps(palette[1])
        (tmp_path / palette[0]).write_text(text)
        palette = (tmp_path / palette[0],)
    image = Image.new("RGB", (WIDTH, HEIGHT), (17, 34, 51))
    image.paste((254, 1, 2), (3, 4, 10, 12))
    image.paste((0, 0, 0), (20, 0, 24, 5))
    (tmp_path / "m").mkdir()
    (image.quantize(8) if mode == "P" else image).save(tmp_path / "m" / "00.png")
    annotated, report = run(pictures, tmp_path / "m", options=("--ignore", "void", "--palette", *palette))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:12, 3:10], expected[:5, 20:] = 1, 255
    assert np.array_equal(annotated.masks[0], expected)
    assert report["declared_never_used"] == []


def test_indexed_masks_in_the_colours_of_the_classes_are_read_by_them(pictures: Path, tmp_path: Path) -> None:
    """A program that goes through RGB numbers the colours anew: by their numbers all classes would be others."""
    (tmp_path / "m").mkdir()
    for index, mask in enumerate(truth()):
        colours = np.array(PALETTE, np.uint8)[mask]
        colours[0, 0] = 255  # as 255, not labelled, looks in the masks that `sample` writes
        image = Image.fromarray(colours).quantize(8)
        assert not np.array_equal(np.asarray(image), mask)
        image.save(tmp_path / "m" / f"{index:02d}.png")
    annotated, _ = run(pictures, tmp_path / "m")
    assert (annotated.masks[:, 0, 0] == 255).all()
    annotated.masks[:, 0, 0] = 0
    assert np.array_equal(annotated.masks, truth())


@pytest.mark.parametrize("colours", [(10, 20, 30, 255, 255, 255, 30, 200, 90), (255, 255, 255) * 3])
def test_numbers_that_share_a_colour_are_told_apart(pictures: Path, tmp_path: Path, colours: tuple[int, ...]) -> None:
    """White is a class here, and what pixels without a label look like; or the file has one colour for everything."""
    record = json.loads((pictures / "classes.json").read_text())
    record["classes"][1]["color"] = [255, 255, 255]
    write_json(pictures / "classes.json", record)
    mask = truth()[0]
    mask[0, :5] = 255
    image = Image.fromarray(mask)
    image.putpalette(bytes(colours).ljust(768, b"\xff"))
    (tmp_path / "m").mkdir()
    image.save(tmp_path / "m" / "00.png")
    annotated, _ = run(pictures, tmp_path / "m")
    assert np.array_equal(annotated.masks[0], mask)


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_white_of_the_masks_of_sample_is_not_labelled(pictures: Path, tmp_path: Path, mode: str) -> None:
    (tmp_path / "m").mkdir()
    with Image.open(pictures / "00.mask.png") as blank:
        image = blank.convert(mode)
    colour = PALETTE[1] if mode == "RGB" else 1
    image.paste(colour, (3, 4, 10, 12))
    image.save(tmp_path / "m" / "00.png")
    annotated, _ = run(pictures, tmp_path / "m")
    expected = np.full((HEIGHT, WIDTH), 255, np.uint8)
    expected[4:12, 3:10] = 1
    assert np.array_equal(annotated.masks[0], expected)


def test_numbers_mean_what_the_palette_says(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m" / "image_mask2.npy", np.where(truth()[2] == 2, 33, truth()[2] * 7))
    annotated, _ = run(pictures, tmp_path / "m", options=("--palette", "ground=0", "cat=7", "ear=33", "ear=34"))
    assert annotated.names == ("02",)
    assert np.array_equal(annotated.masks[0], truth()[2])


# --- keypoints --------------------------------------------------------------------------------------------------------


def coco_with_keypoints(first: list[float], **category: object) -> dict[str, Any]:
    record = coco_record(truth())
    record["categories"][1] |= {"keypoints": ["nose", "tail"], "skeleton": [[1, 2]], **category}
    record["annotations"][0]["keypoints"] = first
    return record


def test_keypoints_of_coco_have_names_and_visibility(pictures: Path, tmp_path: Path) -> None:
    record = coco_with_keypoints([7, 3, 2, 9, 4, 1])
    record["annotations"][2]["keypoints"] = [0, 0, 0, 23, 19, 2]
    annotated, report = run(pictures, write_json(tmp_path / "c.json", record))
    assert annotated.keypoints[0].tolist() == [[7.5, 3.5, 1.0], [0.0, 0.0, 0.0]]
    assert annotated.keypoints[1].tolist() == [[0.0, 0.0, 0.0], [23.5, 19.5, 1.0]]
    assert report["keypoints"] == {
        "nose": {"visible": 1, "hidden": 0, "absent": 2},
        "tail": {"visible": 1, "hidden": 1, "absent": 1},
    }
    assert annotated.schema.skeleton == ((0, 1),)
    assert "indices of pixels" in report["notes"][0]


def test_skeleton_may_be_written_in_fractions(pictures: Path, tmp_path: Path) -> None:
    record = coco_with_keypoints([7, 3, 2, 9, 4, 1], skeleton=[[2.0, 1.0]])
    annotated, _ = run(pictures, write_json(tmp_path / "c.json", record))
    assert annotated.schema.skeleton == ((1, 0),)


@pytest.mark.parametrize(
    ("first", "options", "place"),
    [
        ([7.25, 3, 2, 0, 0, 0], (), [7.25, 3.0]),
        ([7, 3, 2, 0, 0, 0], ("--keypoint-offset", 0), [7.0, 3.0]),
        ([7.25, 3, 2, 0, 0, 0], ("--keypoint-offset", 0.5), [7.75, 3.5]),
    ],
)
def test_places_of_coco_are_indices_or_places(
    pictures: Path, tmp_path: Path, first: list[float], options: tuple[object, ...], place: list[float]
) -> None:
    path = write_json(tmp_path / "c.json", coco_with_keypoints(first))
    annotated, _ = run(pictures, path, options=options)
    assert annotated.keypoints[0, 0, :2].tolist() == place


def test_keypoints_of_cvat_are_points_and_joints(pictures: Path, tmp_path: Path) -> None:
    shapes = '<box label="cat" xtl="3" ytl="4" xbr="9" ybr="9"/>'
    first = cvat_image(0, shapes, '<points label="nose" occluded="0" points="5.25,6.5"/><tag label="cat"/>')
    joints = (
        '<points label="nose" outside="1" occluded="0" points="1,1"/><points label="tail" occluded="1" points="2,2"/>'
    )
    second = cvat_image(1, shapes, f'<skeleton label="cat">{joints}</skeleton>')
    annotated, report = run(pictures, cvat_file(tmp_path / "c.xml", first, second))
    assert annotated.keypoints[0].tolist() == [[5.25, 6.5, 1.0], [0.0, 0.0, 0.0]]
    assert not annotated.keypoints[1].any()
    assert report["keypoints"]["tail"] == {"visible": 0, "hidden": 1, "absent": 1}
    assert report["notes"] == ["1 tags of whole pictures were not read"]
    assert report["declared_never_used"] == ["ground", "ear"]


def test_areas_and_points_may_come_from_different_programs(pictures: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "l" / "01.json", labelme_record("01.png", labelme_shape("tail", "point", [[4.5, 5.75]])))
    annotated, report = run(pictures, write_masks(tmp_path / "m", "grey"), tmp_path / "l")
    assert np.array_equal(annotated.masks, truth())
    assert annotated.keypoints[1, 1].tolist() == [4.5, 5.75, 1.0]
    assert len(report["pairs"]["01"]) == 2


def test_picture_with_points_alone_is_left_out(pictures: Path, tmp_path: Path) -> None:
    folder = write_labelme(tmp_path / "l", "polygon")
    write_json(folder / "01.json", labelme_record("01.png", labelme_shape("tail", "point", [[4, 5]])))
    annotated, report = run(pictures, folder)
    assert annotated.names == ("00", "02")
    assert report["pictures_without_labels"] == ["01"]


def test_report_is_written_and_printed_for_people(pictures: Path, tmp_path: Path) -> None:
    folder = write_labelme(tmp_path / "l", "polygon")
    (folder / "02.json").unlink()
    printed = io.StringIO()
    arguments = [argument for argument in arguments_of(pictures, folder) if argument != "--json"]
    with contextlib.redirect_stdout(printed):
        assert main([*arguments, "--report", str(tmp_path / "new" / "report.json")]) == 0
    record = json.loads((tmp_path / "new" / "report.json").read_text())
    assert record["pictures"] == ["00", "01"]
    text = printed.getvalue()
    for part in (
        "labelme, 2 pictures",
        "pictures without labels, left out: 1 (02)",
        "keypoints never visible: 2 (nose, tail)",
    ):
        assert part in text
    for name in CLASSES:
        assert f"{record['classes'][name]['share']:.2%}" in text
