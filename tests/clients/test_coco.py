"""The COCO form of a data set, as pycocotools reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]  # it has no types
from pycocotools.coco import COCO  # type: ignore[import-untyped]  # it has no types

from labelmint_client._writers.coco import SUBJECT_CATEGORY
from labelmint_client._writers.pictures import resized_mask
from labelmint_client._writers.rle import class_regions, region_of
from tests.clients.datasets import KEYPOINTS, model_of, sample_of, spec_of, write

# pycocotools has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@settings(deadline=None, max_examples=100)
@given(inside=arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_regions_agree_with_pycocotools(inside: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    region = region_of(inside, 1)
    if region is None:
        assert not inside.any()
        return
    rle = coco_mask.frPyObjects({"size": list(inside.shape), "counts": region.counts}, *inside.shape)
    np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), inside)
    assert region.area == coco_mask.area(rle)
    assert list(region.bbox) == coco_mask.toBbox(rle).tolist()


def test_regions_leave_out_what_is_skipped() -> None:
    mask = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    assert [region.label for region in class_regions(mask, skip=frozenset({0, 255}))] == [1, 2]


@pytest.mark.parametrize("label_size", [(12, 10), (6, 5)], ids=["same_size", "half_size"])
def test_coco_gives_the_masks_back_bit_for_bit(
    tmp_path: Path, label_size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(label_size=label_size)
    samples = [sample_of(model, index) for index in range(6)]
    write(tmp_path / "out", spec_of(model, formats=("coco",)), samples)
    coco = COCO(tmp_path / "out" / "annotations.json")
    assert len(coco.getImgIds()) == 6
    for sample, image in zip(samples, coco.loadImgs(coco.getImgIds()), strict=True):
        picture = np.asarray(Image.open(tmp_path / "out" / image["file_name"]))
        np.testing.assert_array_equal(picture, sample.image)
        mask = np.zeros(model.image_size, dtype=np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            inside = coco.annToMask(annotation).astype(bool)
            assert annotation["area"] == inside.sum()
            if annotation["category_id"] != SUBJECT_CATEGORY:
                assert not mask[inside].any()
                mask[inside] = annotation["category_id"]
        np.testing.assert_array_equal(mask, resized_mask(sample.mask, model.image_size))
        assert image["sample_index"] == sample.index
    capsys.readouterr()


def test_coco_keypoints_follow_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_of()
    samples = [sample_of(model, index) for index in range(6)]
    write(tmp_path / "out", spec_of(model, formats=("coco",)), samples)
    coco = COCO(tmp_path / "out" / "annotations.json")
    [category] = coco.loadCats([SUBJECT_CATEGORY])
    assert category["keypoints"] == list(KEYPOINTS)
    assert category["skeleton"] == [[1, 2], [2, 3]]
    annotations = coco.loadAnns(coco.getAnnIds(catIds=[SUBJECT_CATEGORY]))
    for sample, annotation in zip(samples, annotations, strict=True):
        triples = np.array(annotation["keypoints"], dtype=np.float32).reshape(-1, 3)
        visible = sample.keypoints[:, 3] > 0
        assert triples[:, 2].tolist() == np.where(visible, 2, 0).tolist()
        np.testing.assert_array_equal(triples[visible, :2], sample.keypoints[visible, :2])
        assert not triples[~visible].any()
        assert annotation["num_keypoints"] == visible.sum()
        np.testing.assert_array_equal(coco.annToMask(annotation) > 0, sample.mask > 0)
    capsys.readouterr()


def test_coco_repeats_licence_and_attribution(tmp_path: Path) -> None:
    write(tmp_path / "out", spec_of(model_of(), formats=("coco",)), [])
    document = json.loads((tmp_path / "out" / "annotations.json").read_bytes())
    [licence] = document["licenses"]
    assert (licence["name"], licence["url"]) == ("CC-BY-4.0", "https://example.org/terms")
    assert (licence["weights"], licence["attribution"]) == ("Apache-2.0", "Drawn by Zoë Müller")
    assert [category["name"] for category in document["categories"]] == ["face", "hair", "eyes", "cartoon"]
    assert (document["images"], document["annotations"]) == ([], [])
