import numpy as np
import pytest

from labelmint_export.datasets.toonhead.paths import flatten_ellipse, flatten_path, winding_numbers
from labelmint_export.errors import DatasetError


def polygon_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@pytest.mark.parametrize(
    "data",
    ["M1 2H5V6H1Z", "m1 2h4v4h-4z", "M1,2 5,2 5,6 1,6", "m1 2 4 0 0 4-4 0z", "M1 2L5 2l0 4L1 6z", "M+1e0 2h4.0v4h-4"],
)
def test_lines_in_every_notation_give_the_same_square(data: str) -> None:
    (polygon,) = flatten_path(data)
    np.testing.assert_allclose(polygon[:4], [[1, 2], [5, 2], [5, 6], [1, 6]])


@pytest.mark.parametrize(
    "data",
    [
        "M10 0A10 10 0 0110 20 10 10 0 0110 0",
        "M10 0a10 10 0 0 1 0 20a10 10 0 0 1 0-20z",
        "M10 0a10 10 30 1 0 .001 0z",
        "M10 0C15.523 0 20 4.477 20 10S15.523 20 10 20 0 15.523 0 10 4.477 0 10 0",
    ],
)
def test_arcs_and_curves_give_the_same_disc(data: str) -> None:
    (polygon,) = flatten_path(data)
    assert polygon_area(polygon) == pytest.approx(100 * np.pi, rel=0.012)
    np.testing.assert_allclose(np.abs(polygon - polygon.mean(axis=0)).max(), 10.0, atol=0.5)


def test_quadratic_curves_equal_their_parabola() -> None:
    (polygon,) = flatten_path("M0 0Q2 4 4 0T8 0")
    first = polygon[polygon[:, 0] <= 4]
    np.testing.assert_allclose(first[:, 1], first[:, 0] * (4 - first[:, 0]) / 2, atol=1e-9)
    assert polygon[:, 1].min() == pytest.approx(-2.0)


def test_arc_grows_to_reach_its_end() -> None:
    (polygon,) = flatten_path("M0 0A1 1 0 0 1 10 0")
    assert polygon[-1] == pytest.approx([10, 0])
    assert polygon[:, 1].min() == pytest.approx(-5.0)


def test_relative_subpath_starts_where_the_last_one_closed() -> None:
    first, second = flatten_path("M10 10h2v2zm5 0h2v2z")
    np.testing.assert_allclose(second[:3] - first[:3], [[5, 0]] * 3)


def test_winding_tells_inside_hole_and_outside() -> None:
    outer = flatten_ellipse(0, 0, 10, 10)
    inner = flatten_ellipse(0, 0, 5, 5)
    points = np.array([[0.0, 0.0], [7.0, 0.0], [11.0, 0.0]])
    np.testing.assert_array_equal(winding_numbers(outer, points) + winding_numbers(inner, points), [2, 1, 0])
    np.testing.assert_array_equal(winding_numbers(outer[::-1], points), [-1, -1, 0])


@pytest.mark.parametrize("data", ["M1", "M1 2L3", "1 2", "M1 2Lx", "M0 0z5 5", "M0 0 a1 1 0 0"])
def test_malformed_data_is_refused(data: str) -> None:
    with pytest.raises(DatasetError, match="path data is malformed at character"):
        flatten_path(data)
