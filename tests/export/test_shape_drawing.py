"""Shapes against tests of single pixel centres, one by one and in exact numbers where that matters."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]  # it has no types

from labelmint_export.annotations.drawing import Ellipse, Frame, Polygons, Raster, Shape, Stroke, rectangle

# pycocotools has not caught up with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Mask = npt.NDArray[np.bool_]
FRAME = Frame(13, 17, 13, 17)


def points(*pairs: tuple[float, float]) -> npt.NDArray[np.float64]:
    return np.array(pairs, np.float64)


def draw(shape: Shape, frame: Frame = FRAME) -> Mask:
    """The whole mask, whose pixels outside the shape's patch are outside the shape."""
    mask = np.zeros((frame.height, frame.width), np.bool_)
    patch = shape.draw(frame)
    mask[patch.place] = patch.inside
    return mask


def crossing_number(ring: npt.NDArray[np.float64], height: int, width: int) -> tuple[Mask, Mask]:
    """Count, in exact fractions, how often a ray to the left leaves the polygon: inside, and too close to call."""
    corners = [(Fraction(x), Fraction(y)) for x, y in ring.tolist()]
    inside = np.zeros((height, width), np.bool_)
    close = np.zeros((height, width), np.bool_)
    for row in range(height):
        for column in range(width):
            px, py = column + Fraction(1, 2), row + Fraction(1, 2)
            for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y0 <= py) == (y1 <= py):
                    continue
                crossing = x0 + (py - y0) * (x1 - x0) / (y1 - y0)
                inside[row, column] ^= crossing <= px
                close[row, column] |= abs(crossing - px) < Fraction(1, 10**9)
    return inside, close


@given(
    st.lists(
        st.tuples(st.floats(-5, 22, width=32), st.floats(-5, 18, width=32))
        | st.tuples(st.integers(-2, 19).map(float), st.integers(-2, 15).map(lambda y: y + 0.5)),
        min_size=3,
        max_size=9,
    )
)
def test_polygon_is_what_an_exact_test_of_every_centre_says(corners: list[tuple[float, float]]) -> None:
    ring = points(*corners)
    inside, close = crossing_number(ring, 13, 17)
    drawn = draw(Polygons((ring,)))
    assert np.array_equal(drawn[~close], inside[~close])


def test_rectangle_with_whole_corners_has_its_area() -> None:
    drawn = draw(rectangle(9, 2, 3, 7))
    expected = np.zeros((13, 17), np.bool_)
    expected[2:7, 3:9] = True
    assert np.array_equal(drawn, expected)


def test_neighbours_share_no_pixel_and_leave_none() -> None:
    """Fans of triangles with corners on pixel centres, where every rule but a half-open one counts twice or never."""
    corners = [(0.0, 0.0), (8.5, 0.0), (17.0, 0.0), (17.0, 6.5), (17.0, 13.0), (3.5, 13.0), (0.0, 13.0), (0.0, 4.5)]
    times = np.zeros((13, 17), np.int64)
    for first, second in zip(corners, corners[1:] + corners[:1], strict=True):
        times += draw(Polygons((points((8.5, 6.5), first, second),)))
    assert (times == 1).all()


def test_several_polygons_are_united() -> None:
    first, second = points((1, 1), (6, 1), (6, 6), (1, 6)), points((4, 4), (9, 4), (9, 9), (4, 9))
    together = draw(Polygons((first, second)))
    assert np.array_equal(together, draw(Polygons((first,))) | draw(Polygons((second,))))
    assert together[5, 5]


def test_polygon_differs_from_pycocotools_at_its_border_alone() -> None:
    """COCO's own program fills polygons along a rounded border; what is a pixel away from the line is the same."""
    random = np.random.default_rng(2)
    for _ in range(20):
        angles = np.sort(random.uniform(0, 2 * math.pi, 9))
        radii = random.uniform(20, 45, 9)
        ring = np.stack([50 + radii * np.cos(angles), 48 + radii * np.sin(angles)], axis=1)
        drawn = draw(Polygons((ring,)), Frame(100, 100, 100, 100))
        theirs = coco_mask.decode(coco_mask.frPyObjects([ring.ravel().tolist()], 100, 100))[..., 0].astype(bool)
        border = draw(Stroke(np.concatenate([ring, ring[:1]]), 2.0), Frame(100, 100, 100, 100))
        assert np.array_equal(drawn[~border], theirs[~border])
        assert (drawn != theirs).sum() < 0.02 * drawn.sum()


@pytest.mark.parametrize("angle", [0.0, 30.0, -77.0, 90.0])
def test_ellipse_is_what_its_equation_says(angle: float) -> None:
    drawn = draw(Ellipse(8.2, 6.1, 6.3, 2.7, angle))
    for row in range(13):
        for column in range(17):
            offset = complex(column + 0.5 - 8.2, row + 0.5 - 6.1) * complex(
                math.cos(math.radians(-angle)), math.sin(math.radians(-angle))
            )
            assert drawn[row, column] == ((offset.real / 6.3) ** 2 + (offset.imag / 2.7) ** 2 <= 1)


def test_turning_is_clockwise_as_seen() -> None:
    """A bar to the right of its middle and up, turned by 90 degrees, points to the right and down."""
    frame = Frame(41, 41, 41, 41)
    assert np.array_equal(draw(rectangle(10, 18, 31, 23, 90), frame), draw(rectangle(18, 10, 23, 31), frame))
    tilted = draw(rectangle(0.5, 18.5, 40.5, 22.5, 45), frame)
    ellipse = draw(Ellipse(20.5, 20.5, 20, 2, 45), frame)
    for drawn in (tilted, ellipse):
        assert drawn[30, 30]
        assert drawn[10, 10]
        assert not drawn[30, 10]


def test_line_holds_all_centres_within_half_its_thickness() -> None:
    corners = points((2, 3), (12.5, 4), (12.5, 4), (15, 12))
    drawn = draw(Stroke(corners, 3.0))
    for row in range(13):
        for column in range(17):
            centre = np.array([column + 0.5, row + 0.5])
            steps = np.linspace(0, 1, 2001)[:, None]
            walked = np.concatenate([a + steps * (b - a) for a, b in itertools.pairwise(corners)])
            distance = np.linalg.norm(walked - centre, axis=1).min()
            if abs(distance - 1.5) > 1e-3:
                assert drawn[row, column] == (distance < 1.5)


def test_mask_lies_where_its_box_lies_and_is_cut_at_the_frame() -> None:
    inside = np.array([[True, False, True], [True, True, False]])
    expected = np.zeros((13, 17), np.bool_)
    expected[4:6, 15:17] = inside[:, :2]
    assert np.array_equal(draw(Raster(inside, 15, 4)), expected)
    assert np.array_equal(draw(Raster(inside, -1, -1))[0, :2], [True, False])


SHAPES: dict[str, Shape] = {
    "polygon": Polygons((points((4.3, 5.1), (60.2, 9.9), (33.3, 49.4)),)),
    "ellipse": Ellipse(30, 22, 25, 9, 20),
    "line": Stroke(points((5, 5), (60, 40)), 12.0),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_on_an_enlarged_picture_covers_the_same_share_of_the_original(name: str) -> None:
    """Each pixel of the small mask is decided at its centre: between the middle four of the large one."""
    large = draw(SHAPES[name], Frame(52, 68, 52, 68)).reshape(13, 4, 17, 4)[:, 1:3, :, 1:3]
    small = draw(SHAPES[name], Frame(13, 17, 52, 68))
    inside, touched = np.asarray(large.all(axis=(1, 3))), np.asarray(large.any(axis=(1, 3)))
    clear = inside | ~touched
    assert clear.mean() > 0.8
    assert np.array_equal(small[clear], inside[clear])


def test_mask_of_an_enlarged_picture_gives_the_original_back() -> None:
    small = np.random.default_rng(0).random((13, 17)) < 0.5
    for times in (2, 3, 5):
        large = np.kron(small, np.ones((times, times), np.bool_)).astype(np.bool_)
        assert np.array_equal(draw(Raster(large), Frame(13, 17, 13 * times, 17 * times)), small)
