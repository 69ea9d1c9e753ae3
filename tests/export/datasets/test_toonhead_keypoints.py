import dataclasses
import math

import numpy as np
import pytest

from labelmint_export.datasets.toonhead import (
    CLASS_NAMES,
    KEYPOINT_NAMES,
    LEFT_RIGHT_PAIRS,
    SKELETON,
    AvatarDescription,
    Combination,
    Pose,
    ToonHeadSet,
)
from labelmint_export.datasets.toonhead.avatar import render_svg
from labelmint_export.datasets.toonhead.classes import COMPONENT_CLASSES
from labelmint_export.datasets.toonhead.keypoints import KEYPOINT_COMPONENTS, locate_keypoints
from labelmint_export.datasets.toonhead.shapes import component_shapes
from labelmint_export.datasets.toonhead.style import variant_names
from tests.export.datasets.reference_masks import draw_opacity, isolate_component

RESOLUTION = 384
PICTURES = ToonHeadSet(resolution=RESOLUTION, seed=3)
UPRIGHT = Pose()
PLAIN = Combination(
    hair="sideComed",
    rear_hair="none",
    eyes="wide",
    eyebrows="neutral",
    mouth="laugh",
    beard="none",
    clothes="tShirt",
)
INDEX = {name: i for i, name in enumerate(KEYPOINT_NAMES)}


def describe(pose: Pose = UPRIGHT, /, **variants: str) -> AvatarDescription:
    """Describe an avatar that shows all its keypoints, apart from the given variants."""
    combination = dataclasses.replace(PLAIN, **variants)
    return dataclasses.replace(PICTURES.describe(0), combination=combination, pose=pose)


def test_left_is_the_viewers_left() -> None:
    keypoints = locate_keypoints(describe(), RESOLUTION)
    for left, right in LEFT_RIGHT_PAIRS:
        assert keypoints[left, 0] < keypoints[right, 0]
        assert KEYPOINT_NAMES[left].removeprefix("left_") == KEYPOINT_NAMES[right].removeprefix("right_")


def test_parts_stand_in_the_order_of_a_face() -> None:
    y = locate_keypoints(describe(), RESOLUTION)[:, 1]
    names = ["left_eyebrow", "left_eye", "mouth", "chin", "neck"]
    assert np.all(np.diff([y[INDEX[name]] for name in names]) > 0)


def test_skeleton_joins_existing_keypoints() -> None:
    assert {i for bone in SKELETON for i in bone} == set(range(len(KEYPOINT_NAMES)))


def test_pose_moves_keypoints_as_it_moves_pixels() -> None:
    pose = Pose(rotation_degrees=11.0, scale=0.9, shift_x_percent=4.0, shift_y_percent=-3.0)
    upright = locate_keypoints(describe(), RESOLUTION)[:, :2].astype(np.float64)
    posed = locate_keypoints(describe(pose), RESOLUTION)[:, :2]
    offsets = upright - RESOLUTION / 2
    distance = 0.9 * np.hypot(offsets[:, 0], offsets[:, 1])
    angle = np.arctan2(offsets[:, 1], offsets[:, 0]) + math.radians(11.0)
    expected = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1) + RESOLUTION / 2
    expected += np.array([0.04, -0.03]) * RESOLUTION
    np.testing.assert_allclose(posed, expected, atol=1e-3)


def test_facial_shift_moves_eyes_and_mouth_but_not_ears() -> None:
    still = locate_keypoints(describe(), 768)
    moved = locate_keypoints(describe(Pose(face_x=9.0, face_y=-5.0)), 768)
    difference = moved[:, :2] - still[:, :2]
    for name in KEYPOINT_NAMES:
        is_facial = KEYPOINT_COMPONENTS[name] in {"eyes", "eyebrows", "mouth"}
        np.testing.assert_allclose(difference[INDEX[name]], (9.0, -5.0) if is_facial else (0.0, 0.0), atol=1e-3)


@pytest.mark.parametrize("mouth", variant_names("mouth"))
def test_mouth_keypoint_is_the_middle_of_the_drawn_mouth(mouth: str) -> None:
    description = describe(Pose(face_x=5.0, face_y=3.0), mouth=mouth)
    opacity = draw_opacity(isolate_component(render_svg(description), "mouth"), 768)
    rows, columns = np.nonzero(opacity > 0.35)
    middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    np.testing.assert_allclose(locate_keypoints(description, 768)[INDEX["mouth"], :2], middle, atol=1.0)


@pytest.mark.parametrize("eyebrows", variant_names("eyebrows"))
def test_eyebrow_keypoints_are_the_middles_of_the_drawn_eyebrows(eyebrows: str) -> None:
    description = describe(eyebrows=eyebrows)
    opacity = draw_opacity(isolate_component(render_svg(description), "eyebrows"), 768)
    for name, first in (("left_eyebrow", 0), ("right_eyebrow", 384)):
        rows, columns = np.nonzero(opacity[:, first : first + 384] > 0.35)
        middle = first + (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        np.testing.assert_allclose(locate_keypoints(description, 768)[INDEX[name], :2], middle, atol=1.0)


@pytest.mark.parametrize("eyes", variant_names("eyes"))
def test_eye_keypoints_lie_on_the_eyes(eyes: str) -> None:
    description = describe(eyes=eyes)
    opacity = draw_opacity(isolate_component(render_svg(description), "eyes"), 768)
    rows, columns = np.nonzero(opacity > 0.5)
    for name in ("left_eye", "right_eye"):
        x, y, visible = locate_keypoints(description, 768)[INDEX[name]]
        assert visible == 1
        assert (
            np.hypot(columns + 0.5 - x, rows + 0.5 - y).min() < 12
        )  # closed lids are arcs: their middle is beside them
        if eyes in ("happy", "wide"):
            assert opacity[int(y), int(x)] == 1.0


def test_chin_and_neck_lie_on_the_drawn_outlines() -> None:
    description = describe()
    keypoints = locate_keypoints(description, 768)
    head = draw_opacity(isolate_component(render_svg(description), "head"), 768) > 0.5
    body = draw_opacity(isolate_component(render_svg(description), "body"), 768) > 0.5
    assert abs(np.nonzero(head)[0].max() + 1 - keypoints[INDEX["chin"], 1]) < 1.5
    neck_x, neck_y = keypoints[INDEX["neck"], :2]
    widths = body.sum(axis=1)
    assert widths[int(neck_y) - 3] < 100 < widths[int(neck_y) + 3]
    assert abs(np.nonzero(body[int(neck_y) - 3])[0].mean() + 0.5 - neck_x) < 1.5


def test_visible_keypoints_show_their_own_class() -> None:
    for i in range(30):
        sample = PICTURES.render(i)
        for name, (x, y, visible) in zip(KEYPOINT_NAMES, sample.keypoints, strict=True):
            if not visible:
                continue
            own = CLASS_NAMES.index(COMPONENT_CLASSES[KEYPOINT_COMPONENTS[name]])
            row, column = int(y), int(x)
            around = sample.mask[max(0, row - 6) : row + 7, max(0, column - 6) : column + 7]
            assert (around == own).any(), (i, name)


def test_hidden_keypoints_lie_outside_the_frame_or_below_another_class() -> None:
    num_hidden = 0
    for i in range(30):
        sample = PICTURES.render(i)
        for name, (x, y, visible) in zip(KEYPOINT_NAMES, sample.keypoints, strict=True):
            if visible or not (0 <= x < RESOLUTION and 0 <= y < RESOLUTION):
                continue
            own = CLASS_NAMES.index(COMPONENT_CLASSES[KEYPOINT_COMPONENTS[name]])
            row, column = int(y), int(x)
            around = sample.mask[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4]
            assert (around != own).any(), (i, name)
            num_hidden += 1
    assert num_hidden > 20


@pytest.mark.parametrize(
    ("hidden", "variants"),
    [
        ({"chin"}, {"beard": "fullBeard"}),
        ({"chin", "neck"}, {"beard": "longBeard"}),
        ({"neck"}, {"clothes": "turtleNeck"}),
        ({"left_ear", "right_ear"}, {"hair": "bun"}),
        (set(), {}),
    ],
)
def test_parts_above_hide_keypoints(hidden: set[str], variants: dict[str, str]) -> None:
    keypoints = locate_keypoints(describe(**variants), RESOLUTION)
    assert {name for name, keypoint in zip(KEYPOINT_NAMES, keypoints, strict=True) if keypoint[2] == 0} == hidden


def test_keypoint_outside_the_frame_is_hidden() -> None:
    keypoints = locate_keypoints(describe(Pose(shift_x_percent=-40.0)), RESOLUTION)
    assert keypoints[INDEX["left_ear"], 0] < 0
    assert keypoints[INDEX["left_ear"], 2] == 0
    assert keypoints[INDEX["right_ear"], 2] == 1


@pytest.mark.parametrize(
    ("component", "variant"),
    [(component, variant) for component in COMPONENT_CLASSES for variant in variant_names(component)],
)
def test_shapes_cover_what_is_drawn(component: str, variant: str) -> None:
    field = {"rearHair": "rear_hair"}.get(component, component)
    variants = {} if component in ("head", "body") else {field: variant}
    description = describe(**variants)
    resolution = 96
    opacity = draw_opacity(isolate_component(render_svg(description), component), resolution)
    centers = (np.stack(np.meshgrid(np.arange(resolution), np.arange(resolution)), axis=-1) + 0.5) * 768 / resolution
    local = centers.reshape(-1, 2) - np.array(description.component_position(component))
    covered = np.zeros(len(local), dtype=np.bool_)
    for shape in component_shapes(component, variant):
        if not shape.is_shading:
            covered |= shape.contains(local)
    decided = (opacity < 0.02) | (opacity > 0.98)
    assert np.array_equal(covered.reshape(resolution, resolution)[decided], opacity[decided] > 0.5)
