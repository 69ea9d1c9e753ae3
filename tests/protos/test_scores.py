import numpy as np
import numpy.typing as npt
import pytest

from labelmint.errors import ArrayError
from labelmint.scores import image_score


def reference_score(uncertainty: npt.NDArray[np.float16]) -> list[np.float32]:
    """The definition, by sorting in exact rational-free Python floats."""
    scores = []
    for plane in uncertainty:
        values = sorted((float(value) for value in plane.ravel()), reverse=True)
        largest = values[: max(1, len(values) // 10)]
        scores.append(np.float32(sum(largest) / len(largest)))
    return scores


@pytest.mark.parametrize("shape", [(3, 7, 9), (1, 1, 1), (2, 3, 3), (2, 128, 128), (4, 10, 1), (0, 4, 4)])
def test_score_is_the_mean_of_the_largest_tenth(shape: tuple[int, int, int]) -> None:
    uncertainty = np.random.default_rng(0).gamma(0.3, 0.2, shape).astype(np.float16)
    scores = image_score(uncertainty)
    assert scores.dtype == np.float32
    assert scores.tolist() == [float(score) for score in reference_score(uncertainty)]


def test_score_does_not_depend_on_where_the_pixels_lie() -> None:
    generator = np.random.default_rng(1)
    uncertainty = generator.random((1, 64, 64)).astype(np.float16)
    shuffled = generator.permutation(uncertainty.ravel()).reshape(1, 64, 64)
    assert image_score(uncertainty) == image_score(shuffled)


def test_large_values_do_not_overflow_and_equal_values_score_themselves() -> None:
    assert image_score(np.full((1, 512, 512), 65504, np.float16)).tolist() == [65504.0]


def test_negative_zero_counts_as_zero() -> None:
    uncertainty = np.full((1, 4, 5), -0.0, np.float16)
    uncertainty[0, 0, 0] = 0.5
    assert image_score(uncertainty).tolist() == [0.25]


def test_strided_map_scores_like_its_copy() -> None:
    uncertainty = np.random.default_rng(2).random((2, 20, 40)).astype(np.float16)
    assert (image_score(uncertainty[:, ::2, ::3]) == image_score(uncertainty[:, ::2, ::3].copy())).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.001])
def test_value_that_is_no_divergence_is_refused(value: float) -> None:
    uncertainty = np.zeros((2, 4, 4), np.float16)
    uncertainty[1, 2, 3] = value
    with pytest.raises(ArrayError, match="negative or non-finite"):
        image_score(uncertainty)


@pytest.mark.parametrize(
    "uncertainty", [np.zeros((2, 4, 4), np.float32), np.zeros((4, 4), np.float16), np.zeros((2, 0, 4), np.float16)]
)
def test_other_arrays_are_refused(uncertainty: npt.NDArray[np.float16]) -> None:
    with pytest.raises(ArrayError, match="expected float16"):
        image_score(uncertainty)
