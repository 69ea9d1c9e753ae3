"""Run lengths against pycocotools, and texts that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]  # it has no types

from labelmint_export.annotations.rle import Runs, check_runs, decode_text, parse_coco
from labelmint_export.errors import AnnotationError

# pycocotools has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Mask = np.ndarray[Any, np.dtype[np.bool_]]
MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def plain_runs(values: list[bool]) -> list[int]:
    """Count the runs one by one, outside first."""
    runs, current = [0], False
    for value in values:
        if value != current:
            runs.append(0)
            current = value
        runs[-1] += 1
    return runs


@given(MASKS)
def test_compressed_runs_of_pycocotools_are_decoded(inside: Mask) -> None:
    record = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    record["counts"] = record["counts"].decode()
    assert np.array_equal(parse_coco(record, inside.shape, "here").decode().inside, inside)


@given(MASKS)
def test_uncompressed_runs_mean_what_pycocotools_makes_of_them(inside: Mask) -> None:
    height, width = inside.shape
    record = {"size": [height, width], "counts": plain_runs(inside.T.ravel().tolist())}
    theirs = coco_mask.decode(coco_mask.frPyObjects(dict(record), height, width))
    assert np.array_equal(parse_coco(record, (height, width), "here").decode().inside, theirs.astype(bool))
    assert np.array_equal(theirs.astype(bool), inside)


@given(MASKS)
def test_runs_along_rows_are_decoded(inside: Mask) -> None:
    runs = plain_runs(inside.ravel().tolist())
    height, width = inside.shape
    mask = Runs(check_runs(runs, height, width, "here"), height, width, 3, 7, by_column=False).decode()
    assert np.array_equal(mask.inside, inside)
    assert (mask.left, mask.top) == (3, 7)


def test_large_mask_with_long_runs() -> None:
    inside = np.zeros((3000, 2000), np.bool_)
    inside[:, 700:1900] = True
    record = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    assert decode_text(record["counts"].decode(), "here") == [2_100_000, 3_600_000, 300_000]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30) | st.text(max_size=10))
def test_any_text_is_a_whole_mask_or_an_error(text: str) -> None:
    try:
        mask = parse_coco({"size": [6, 5], "counts": text}, (6, 5), "here").decode().inside
    except AnnotationError as error:
        assert error.field == "counts"
    else:
        assert mask.shape == (6, 5)
        theirs = coco_mask.decode({"size": [6, 5], "counts": text.encode()})
        assert np.array_equal(mask, theirs.astype(bool))


BAD: dict[str, tuple[object, object, str, str]] = {
    "too short": ([6, 5], [2, 3], "counts", "add up to 5 pixels, expected 30"),
    "too long": ([6, 5], [2, 3, 26], "counts", "add up to 31 pixels, expected 30"),
    "empty": ([6, 5], "", "counts", "add up to 0 pixels"),
    "one huge run": ([6, 5], [10**18], "counts", "no integer from 0 to 30"),
    "huge and negative": ([6, 5], [10**18, 30 - 10**18], "counts", "no integer from 0 to 30"),
    "fraction": ([6, 5], [29.5, 0.5], "counts", "no integer"),
    "truth": ([6, 5], [True, 29], "counts", "no integer"),
    "number too long": ([6, 5], "o" * 100, "counts", "no compressed RLE"),
    "cut off": ([6, 5], "o", "counts", "ends in the middle"),
    "no character of it": ([6, 5], "1é", "counts", "no compressed RLE"),
    "other size": ([5, 6], [30], "size", "the size of the RLE is .5, 6., expected .6, 5."),
    "huge size": ([10**9, 10**9], [10**18], "size", "the size of the RLE is"),
    "no size": (None, [30], "size", "the size of the RLE is None"),
    "no counts": ([6, 5], None, "counts", "expected a text or a list"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_mask_of_the_picture_is_refused(case: str) -> None:
    size, counts, field, message = BAD[case]
    with pytest.raises(AnnotationError, match=message) as caught:
        parse_coco({"size": size, "counts": counts}, (6, 5), "here")
    assert caught.value.field == field
    assert str(caught.value).startswith("here: ")
