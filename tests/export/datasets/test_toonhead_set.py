import contextlib
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from labelmint_export.datasets.toonhead import ATTRIBUTION, CLASS_NAMES, LICENCE, PALETTE, Split, ToonHeadSet
from labelmint_export.datasets.toonhead.avatar import BACKGROUND_COLORS, MAX_ROTATION_DEGREES, SCALE_RANGE, render_svg
from labelmint_export.datasets.toonhead.rendering import _chunks_in_processes
from labelmint_export.datasets.toonhead.splits import NO_VARIANT
from labelmint_export.datasets.toonhead.style import load_definition, variant_names
from labelmint_export.errors import DatasetError

COMPONENT_FIELDS = {
    "hair": "hair",
    "rear_hair": "rearHair",
    "eyes": "eyes",
    "eyebrows": "eyebrows",
    "mouth": "mouth",
    "beard": "beard",
    "clothes": "clothes",
}


def test_two_processes_draw_what_one_draws() -> None:
    pictures = ToonHeadSet(resolution=32, seed=7)
    indices = range(40)
    images, masks, keypoints = pictures.render_labelled(indices, num_processes=2)
    for i in indices:
        sample = pictures.render(i)
        np.testing.assert_array_equal(images[i], sample.image)
        np.testing.assert_array_equal(masks[i], sample.mask)
        np.testing.assert_array_equal(keypoints[i], sample.keypoints)


def test_sample_does_not_depend_on_what_was_drawn_before() -> None:
    pictures = ToonHeadSet(resolution=32)
    first = pictures.render_images([5, 3])
    second = pictures.render_images([3, 4, 5])
    np.testing.assert_array_equal(first, second[[2, 0]])


def test_shapes_dtypes_and_ranges() -> None:
    images, masks, keypoints = ToonHeadSet(resolution=48).render_labelled([0, 1])
    assert images.shape == (2, 48, 48, 3)
    assert images.dtype == np.uint8
    assert masks.shape == (2, 48, 48)
    assert masks.dtype == np.uint8
    assert keypoints.shape == (2, 9, 3)
    assert keypoints.dtype == np.float32
    assert set(np.unique(keypoints[..., 2])) <= {0.0, 1.0}


def test_another_resolution_is_the_same_picture() -> None:
    small = ToonHeadSet(resolution=64, seed=4).render(11)
    large = ToonHeadSet(resolution=256, seed=4).render(11)
    reduced = np.asarray(Image.fromarray(large.image).resize((64, 64), Image.Resampling.BOX), dtype=np.float64)
    assert np.abs(reduced - small.image).mean() < 2.0
    np.testing.assert_allclose(large.keypoints[:, :2] / 4, small.keypoints[:, :2], atol=1e-3)
    np.testing.assert_array_equal(large.keypoints[:, 2], small.keypoints[:, 2])


def test_other_seeds_splits_and_indices_give_other_avatars() -> None:
    descriptions = [
        ToonHeadSet(resolution=32, seed=seed, split=split).describe(index)
        for seed in (0, 1, 2**64 - 1)
        for split in Split
        for index in (0, 1, 2**64 - 1)
    ]
    assert len(set(descriptions)) == len(descriptions)


def test_splits_share_no_combination() -> None:
    combinations = {
        split: {ToonHeadSet(resolution=32, split=split).describe(i).combination for i in range(1500)} for split in Split
    }
    assert combinations[Split.TRAIN].isdisjoint(combinations[Split.TEST])
    for split, found in combinations.items():
        assert {combination.split for combination in found} == {split}


@pytest.mark.parametrize("split", list(Split))
def test_every_variant_and_colour_occurs_in_both_splits(split: Split) -> None:
    descriptions = [ToonHeadSet(resolution=32, split=split).describe(i) for i in range(600)]
    for field, component in COMPONENT_FIELDS.items():
        found = {getattr(description.combination, field) for description in descriptions}
        optional = {NO_VARIANT} if component in ("rearHair", "beard") else set()
        assert found == set(variant_names(component)) | optional
    assert {description.background_color for description in descriptions} == set(BACKGROUND_COLORS)
    for name in ("skin", "hair", "clothes"):
        assert len({getattr(description, f"{name}_color") for description in descriptions}) >= 5


@pytest.mark.parametrize("pose_range", [0.0, 0.5])
def test_smaller_range_moves_the_same_avatars_less(pose_range: float) -> None:
    for i in range(200):
        whole, less = (
            ToonHeadSet(resolution=32).describe(i),
            ToonHeadSet(resolution=32, pose_range=pose_range).describe(i),
        )
        assert dataclasses.replace(less, pose=whole.pose) == whole
        assert less.pose.rotation_degrees == pytest.approx(pose_range * whole.pose.rotation_degrees, abs=1e-3)
        assert less.pose.scale - 1 == pytest.approx(pose_range * (whole.pose.scale - 1), abs=1e-4)
        assert less.pose.shift_x_percent == pytest.approx(pose_range * whole.pose.shift_x_percent, abs=1e-3)
        assert abs(less.pose.shift_y_percent) <= 6.0 * pose_range
        corners = np.array([[123.0, 883.0, 1.0], [645.0, 883.0, 1.0]]) @ less.pose.matrix().T
        assert corners[:, 1].min() > 767.9


@pytest.mark.parametrize("pose_range", [-0.1, 1.5, float("nan")])
def test_range_out_of_range_is_refused(pose_range: float) -> None:
    with pytest.raises(DatasetError, match="expected 0 to 1") as caught:
        ToonHeadSet(resolution=32, pose_range=pose_range)
    assert caught.value.field == "pose_range"


def test_poses_stay_in_their_ranges_and_hide_the_bottom_of_the_bust() -> None:
    for i in range(500):
        pose = ToonHeadSet(resolution=32).describe(i).pose
        assert abs(pose.rotation_degrees) <= MAX_ROTATION_DEGREES
        assert SCALE_RANGE[0] <= pose.scale <= SCALE_RANGE[1]
        assert max(abs(pose.shift_x_percent), abs(pose.shift_y_percent)) <= 6.0
        corners = np.array([[123.0, 883.0, 1.0], [645.0, 883.0, 1.0]]) @ pose.matrix().T
        assert corners[:, 1].min() > 767.9


def test_pictures_are_opaque_to_the_corner() -> None:
    pictures = ToonHeadSet(resolution=40, seed=9)
    for i in range(10):
        background = bytes.fromhex(pictures.describe(i).background_color[1:])
        assert pictures.render_image(i)[0, 0].tobytes() == background


def test_facial_parts_move_in_the_drawing() -> None:
    description = ToonHeadSet(resolution=32).describe(0)
    svg = render_svg(description)
    for component in ("eyes", "eyebrows", "mouth"):
        x, y = description.component_position(component)
        assert f'<use transform="translate({x:.3f} {y:.3f})" href="#{component}-' in svg


def test_palette_and_attribution_are_complete() -> None:
    assert len(set(PALETTE)) == len(PALETTE) == len(CLASS_NAMES) == 9
    licence = load_definition()["meta"]["license"]
    assert LICENCE.replace("-", " ", 2).startswith("CC BY 4.0")
    for part in ("Johan Melin", "ToonHead", licence["url"], load_definition()["meta"]["source"]["url"], "DiceBear"):
        assert part in ATTRIBUTION


@pytest.mark.parametrize("resolution", [0, -1, 7, 5000])
def test_resolution_out_of_range_is_refused(resolution: int) -> None:
    with pytest.raises(DatasetError, match=f"resolution is {resolution}, expected 8 to 4096"):
        ToonHeadSet(resolution=resolution)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(DatasetError, match=f"seed is {seed}"):
        ToonHeadSet(resolution=32, seed=seed)


@pytest.mark.parametrize("index", [-1, 2**64])
def test_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(DatasetError, match=f"index is {index}"):
        ToonHeadSet(resolution=32).render(index)


def test_no_processes_are_refused() -> None:
    with pytest.raises(DatasetError, match="num_processes is 0"):
        ToonHeadSet(resolution=32).render_images([0], num_processes=0)


def test_failure_in_a_process_reaches_the_caller() -> None:
    with pytest.raises(DatasetError, match="sample 18446744073709551616 failed in a rendering process: DatasetError"):
        ToonHeadSet(resolution=16).render_images([*range(32), 2**64], num_processes=2)


def test_death_of_a_process_reaches_the_caller() -> None:
    with pytest.raises(DatasetError, match="a rendering process died"):
        list(_chunks_in_processes(os._exit, list(range(1, 40)), 2))


RENDERING = (
    "import math, time\n"
    "from labelmint_export.datasets.toonhead.rendering import _chunks_in_processes\n"
    "chunks = _chunks_in_processes(math.sqrt, list(range(640)), 2)\n"
    "print(next(chunks)[:2], flush=True)\n"
    "time.sleep(600)\n"
)
"""A process with two others, which have nothing left to do."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to ask")
def test_processes_end_with_the_one_that_started_them() -> None:
    command = [sys.executable, "-c", RENDERING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "[0.0, 1.0]\n"
        process.kill()
    end = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("a process waits for work for ever")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to interrupt")
def test_interruption_is_answered_by_one_process() -> None:
    """A terminal sends Ctrl-C to all of them."""
    command = [sys.executable, "-c", RENDERING]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, printed = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert printed.count("Traceback") == 1
    assert printed.rstrip().endswith("KeyboardInterrupt")


def test_unknown_colour_is_a_dataset_error_that_survives_pickling() -> None:
    description = ToonHeadSet(resolution=32).describe(0)
    object.__setattr__(description, "skin_color", "beige")
    with pytest.raises(DatasetError, match="dicebear cannot draw") as raised:
        render_svg(description)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
