from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmint_client import OutputError
from labelmint_client._writers.atomic import clear_errors, write_atomic
from labelmint_client._writers.coco import SUBJECT_CATEGORY
from labelmint_client._writers.dataset import DatasetWriter
from tests.clients.datasets import CLASSES, KEYPOINTS, contents, model_of, sample_of, spec_of, write, write_part


def test_png_masks_hold_class_ids_and_show_class_colours(tmp_path: Path) -> None:
    model = model_of()
    samples = [sample_of(model, index) for index in range(6)]
    write(tmp_path / "out", spec_of(model, formats=("png",), uncertainty_maps=True), samples)
    palette = np.array([colour for _, colour in CLASSES], dtype=np.uint8)
    for sample in samples:
        with Image.open(tmp_path / "out" / "masks" / f"{sample.index:06d}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), sample.mask)
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), palette[sample.mask])
        stored = np.load(tmp_path / "out" / "uncertainty_maps" / f"{sample.index:06d}.npy")
        np.testing.assert_array_equal(stored, sample.uncertainty_map)


def test_keypoints_json_holds_every_sample(tmp_path: Path) -> None:
    model = model_of()
    samples = [sample_of(model, index) for index in range(6)]
    write(tmp_path / "out", spec_of(model, formats=("png",)), samples)
    document = json.loads((tmp_path / "out" / "keypoints.json").read_bytes())
    assert document["names"] == list(KEYPOINTS)
    stored = [record["keypoints"] for record in document["samples"]]
    np.testing.assert_array_equal(
        np.array(stored, dtype=np.float32), np.stack([sample.keypoints for sample in samples])
    )
    assert [record["index"] for record in document["samples"]] == list(range(6))


def test_model_without_keypoints_has_no_keypoint_files(tmp_path: Path) -> None:
    model = model_of(keypoints=False)
    write(tmp_path / "out", spec_of(model), [sample_of(model, 0)])
    assert not (tmp_path / "out" / "keypoints.json").exists()
    document = json.loads((tmp_path / "out" / "annotations.json").read_bytes())
    assert SUBJECT_CATEGORY not in {category["id"] for category in document["categories"]}


def test_dataset_json_and_licence_say_what_it_is(tmp_path: Path) -> None:
    model = model_of()
    write(tmp_path / "out", spec_of(model), [sample_of(model, index) for index in (0, 2, 3)])
    description = json.loads((tmp_path / "out" / "dataset.json").read_bytes())
    assert (description["model"], description["digest"], description["numerics_id"]) == ("cartoon", "c" * 64, "n" * 64)
    assert description["request"]["seed"] == 1
    assert (description["num_samples"], description["num_scanned"], description["num_rejected"]) == (3, 6, 3)
    assert description["licence"]["attribution"] == "Drawn by Zoë Müller"
    text = (tmp_path / "out" / "LICENCE.txt").read_text(encoding="utf-8")
    for part in ("CC-BY-4.0", "Apache-2.0", "Drawn by Zoë Müller", "https://example.org/terms"):
        assert part in text


@pytest.mark.parametrize("num_before", range(7))
def test_resumed_data_set_equals_an_uninterrupted_one(tmp_path: Path, num_before: int) -> None:
    model = model_of()
    samples = [sample_of(model, index) for index in range(6)]
    write(tmp_path / "whole", spec_of(model), samples)
    write_part(tmp_path / "resumed", spec_of(model), samples[:num_before])
    assert not (tmp_path / "resumed" / "dataset.json").exists()
    assert (tmp_path / "resumed" / "INCOMPLETE.jsonl").exists()
    point = DatasetWriter(tmp_path / "resumed", spec_of(model)).prepare(resume=True, overwrite=False)
    assert point is not None
    assert (point.num_samples, point.next_index, point.is_complete) == (num_before, num_before, False)
    assert write(tmp_path / "resumed", spec_of(model), samples[num_before:], resume=True) == 6
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_journal_line_cut_off_by_a_fault_is_made_again(tmp_path: Path) -> None:
    model = model_of()
    samples = [sample_of(model, index) for index in range(6)]
    write(tmp_path / "whole", spec_of(model), samples)
    write_part(tmp_path / "torn", spec_of(model), samples[:4])
    journal = tmp_path / "torn" / "INCOMPLETE.jsonl"
    os.truncate(journal, journal.stat().st_size - 9)
    point = DatasetWriter(tmp_path / "torn", spec_of(model)).prepare(resume=True, overwrite=False)
    assert point is not None
    assert (point.num_samples, point.next_index) == (3, 3)
    write(tmp_path / "torn", spec_of(model), samples[3:], resume=True)
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_addresses_that_were_passed_over_are_behind_a_resumed_data_set(tmp_path: Path) -> None:
    model = model_of()
    samples = [sample_of(model, index) for index in (0, 1, 5)]
    write(tmp_path / "whole", spec_of(model), samples)
    writer = DatasetWriter(tmp_path / "out", spec_of(model))
    writer.prepare(resume=False, overwrite=False)
    writer.pass_over(0)  # nothing is there yet that could be resumed
    assert not (tmp_path / "out").exists()
    writer.begin("n" * 64)
    for sample in samples[:2]:
        writer.write(sample, sample.index + 1)
    writer.pass_over(3)
    with (tmp_path / "out" / "INCOMPLETE.jsonl").open("ab") as journal:
        journal.write(b'{"next_in')
    writer = DatasetWriter(tmp_path / "out", spec_of(model))
    points = [writer.prepare(resume=True, overwrite=False)]
    writer.pass_over(5)
    points.append(DatasetWriter(tmp_path / "out", spec_of(model)).prepare(resume=True, overwrite=False))
    assert [point and (point.num_samples, point.next_index) for point in points] == [(2, 3), (2, 5)]
    assert write(tmp_path / "out", spec_of(model), samples[2:], resume=True) == 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("content", [b"", b"{\n", b"[]\n", b'{"request": {}}\n'])
def test_damaged_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "INCOMPLETE.jsonl").write_bytes(content)
    with pytest.raises(OutputError, match="--overwrite"):
        DatasetWriter(tmp_path, spec_of(model_of())).prepare(resume=True, overwrite=False)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"request": {}}', b'{"labels": [["images/000000.png", 3]]}'])
@pytest.mark.parametrize("overwrite", [True, False])
def test_dataset_json_of_others_is_never_touched(tmp_path: Path, content: bytes, overwrite: bool) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000000.png").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"did not write \(dataset.json\)"):
        DatasetWriter(tmp_path, spec_of(model_of())).prepare(resume=not overwrite, overwrite=overwrite)


def test_finished_data_set_has_nothing_left_to_do(tmp_path: Path) -> None:
    model = model_of()
    write(tmp_path / "out", spec_of(model), [sample_of(model, index) for index in range(6)])
    point = DatasetWriter(tmp_path / "out", spec_of(model)).prepare(resume=True, overwrite=False)
    assert point is not None
    assert (point.is_complete, point.num_samples, point.next_index) == (True, 6, 6)


def test_finished_data_set_is_not_extended(tmp_path: Path) -> None:
    model = model_of()
    write(tmp_path / "out", spec_of(model), [sample_of(model, 0)])
    with pytest.raises(OutputError, match="to another folder, from index 6"):
        DatasetWriter(tmp_path / "out", spec_of(model, count=9)).prepare(resume=True, overwrite=False)


@pytest.mark.parametrize("finished", [True, False])
def test_resuming_with_other_arguments_names_them(tmp_path: Path, finished: bool) -> None:
    model = model_of()
    (write if finished else write_part)(tmp_path / "out", spec_of(model), [sample_of(model, 0)])
    other = spec_of(model, seed=2, formats=("png",))
    with pytest.raises(OutputError, match=r"formats is .* seed is 1 there and 2 here"):
        DatasetWriter(tmp_path / "out", other).prepare(resume=True, overwrite=False)


@pytest.mark.parametrize(("finished", "state"), [(True, "a finished"), (False, "an unfinished")])
def test_existing_data_set_is_not_touched_unasked(tmp_path: Path, finished: bool, state: str) -> None:
    model = model_of()
    (write if finished else write_part)(tmp_path / "out", spec_of(model), [sample_of(model, 0)])
    before = contents(tmp_path / "out")
    with pytest.raises(OutputError, match=f"holds {state} data set already; go on with --resume"):
        DatasetWriter(tmp_path / "out", spec_of(model)).prepare(resume=False, overwrite=False)
    assert contents(tmp_path / "out") == before


def test_overwriting_leaves_nothing_of_the_old_data_set(tmp_path: Path) -> None:
    model = model_of()
    samples = [sample_of(model, index) for index in range(6)]
    write(tmp_path / "out", spec_of(model, uncertainty_maps=True), samples)
    write(tmp_path / "out", spec_of(model, formats=("coco",)), samples[:2], overwrite=True)
    write(tmp_path / "fresh", spec_of(model, formats=("coco",)), samples[:2])
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("with_ours", [True, False])
def test_folder_with_foreign_files_is_never_touched(tmp_path: Path, overwrite: bool, with_ours: bool) -> None:
    model = model_of()
    if with_ours:
        write(tmp_path / "out", spec_of(model), [sample_of(model, 0)])
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match=r"did not write \(thesis.tex\)"):
        DatasetWriter(tmp_path / "out", spec_of(model)).prepare(resume=not overwrite, overwrite=overwrite)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("name", [".notes.tmp", "notes.tmp", ".notes.5841.tmp"])
def test_temporary_files_of_others_are_foreign_too(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match=f"did not write .{name}"):
        DatasetWriter(tmp_path, spec_of(model_of())).prepare(resume=False, overwrite=False)


def test_files_that_others_put_beside_the_samples_are_not_overwritten(tmp_path: Path) -> None:
    model = model_of()
    write(tmp_path / "out", spec_of(model), [sample_of(model, 0)])
    (tmp_path / "out" / "images" / "000000.json").write_text("drawn by hand")
    with pytest.raises(OutputError, match=r"did not write \(images/000000.json\)"):
        DatasetWriter(tmp_path / "out", spec_of(model)).prepare(resume=False, overwrite=True)


def test_file_where_the_folder_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        DatasetWriter(tmp_path / "out", spec_of(model_of())).prepare(resume=False, overwrite=False)
    deeper = DatasetWriter(tmp_path / "out" / "deeper", spec_of(model_of()))
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        deeper.begin("n" * 64)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_a_clear_error_and_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "000000.png"
    draft = tmp_path / f".{path.name}.{os.getpid()}.tmp"
    draft.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="the disk is full: free some space") as caught:
        write_atomic(path, b"x" * 100)
    assert caught.value.field == "out"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EISDIR, errno.EIO])
def test_errors_of_the_file_system_say_path_and_cause(number: int) -> None:
    with pytest.raises(OutputError, match=r"cannot write there: \w+"), clear_errors(Path("there"), "write"):
        raise OSError(number, os.strerror(number))


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "no bytes")  # type: ignore[arg-type]  # the fault under test
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
