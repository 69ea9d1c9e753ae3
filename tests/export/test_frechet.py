"""The Frechet distance and the features below it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelmint_export.errors import DatasetError
from labelmint_export.gan.frechet import FeatureStatistics, features_of, frechet_distance, statistics_of
from labelmint_export.gan.nearest import save_nearest
from labelmint_export.oracle.network import Segmenter, SegmenterConfig
from tests.export.tiny_parts import make_pictures


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(SegmenterConfig(num_classes=3, num_keypoints=0, widths=(4, 6))).eval().requires_grad_(False)


def random_covariance(size: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    root = np.random.default_rng(seed).standard_normal((size, size))
    return root @ root.T


def test_distance_of_diagonal_gaussians_has_its_closed_form() -> None:
    random = np.random.default_rng(0)
    m, n = random.standard_normal((2, 6))
    a, b = random.uniform(0.1, 3.0, (2, 6))
    got = frechet_distance(FeatureStatistics(m, np.diag(a**2)), FeatureStatistics(n, np.diag(b**2)))
    assert got == pytest.approx(float(((m - n) ** 2).sum() + ((a - b) ** 2).sum()), rel=1e-9)


def test_distance_of_rotated_gaussians_is_that_of_the_straight_ones() -> None:
    random = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(random.standard_normal((5, 5)))
    a, b = random.uniform(0.1, 3.0, (2, 5))
    first = FeatureStatistics(np.zeros(5), rotation @ np.diag(a**2) @ rotation.T)
    second = FeatureStatistics(np.zeros(5), rotation @ np.diag(b**2) @ rotation.T)
    assert frechet_distance(first, second) == pytest.approx(float(((a - b) ** 2).sum()), rel=1e-8)


def test_distance_is_zero_for_equal_gaussians_and_symmetric_otherwise() -> None:
    first = FeatureStatistics(np.arange(6.0), random_covariance(6, 0))
    second = FeatureStatistics(np.ones(6), random_covariance(6, 1))
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)
    assert frechet_distance(first, second) > 1.0


def test_distance_of_singular_covariances_is_finite() -> None:
    """Fewer pictures than features."""
    thin = np.random.default_rng(0).standard_normal((3, 8))
    statistics = FeatureStatistics(thin.mean(axis=0), np.cov(thin, rowvar=False))
    assert frechet_distance(statistics, statistics) == pytest.approx(0.0, abs=1e-5)


def test_features_are_the_moments_of_the_encoder_levels(network: Segmenter) -> None:
    pictures = make_pictures(3, 16)
    got = features_of(network, pictures, 16)
    assert got.shape == (3, 2 * (4 + 6))
    for index, picture in enumerate(pictures):
        levels = network.encode(torch.from_numpy(picture[None]).permute(0, 3, 1, 2).float() / 127.5 - 1)
        arrays = [level[0].flatten(1).numpy() for level in levels]
        expected = np.concatenate([m for a in arrays for m in (a.mean(axis=1), a.std(axis=1, ddof=1))])
        np.testing.assert_allclose(got[index], expected, rtol=1e-4, atol=1e-5)


def test_larger_pictures_are_measured_at_the_wanted_side(network: Segmenter) -> None:
    small = make_pictures(4, 16)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(features_of(network, large, 16), features_of(network, small, 16), rtol=1e-5, atol=1e-6)
    with pytest.raises(DatasetError, match="expected a multiple of 12"):
        features_of(network, small, 12)


def test_distance_tells_near_sets_from_far_ones(network: Segmenter) -> None:
    one = statistics_of(network, make_pictures(150, 16, seed=0), 16)
    other = statistics_of(network, make_pictures(150, 16, seed=1), 16)
    noise = np.random.default_rng(0).integers(0, 256, (150, 16, 16, 3)).astype(np.uint8)
    far = statistics_of(network, noise, 16)
    assert frechet_distance(one, far) > 5 * frechet_distance(one, other) > 0


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures_for_a_covariance_are_refused(network: Segmenter, count: int) -> None:
    with pytest.raises(DatasetError, match=f"count is {count} pictures, expected at least 2") as caught:
        statistics_of(network, make_pictures(3, 16)[:count], 16)
    assert caught.value.field == "count"


def test_nearest_pictures_stand_beside_each_picture(network: Segmenter, tmp_path: Path) -> None:
    training = make_pictures(9, 16)
    painted = training[[7, 2]]
    save_nearest(network, painted, training, tmp_path / "nearest.png")
    sheet = np.asarray(Image.open(tmp_path / "nearest.png"))
    assert sheet.shape == (2 * 16, 6 * 16, 3)
    for row, index in enumerate((7, 2)):
        tiles = sheet[row * 16 : row * 16 + 16].reshape(16, 6, 16, 3).transpose(1, 0, 2, 3)
        assert np.array_equal(tiles[0], training[index])
        assert np.array_equal(tiles[1], training[index]), "a copied picture is its own nearest one"
        assert not np.array_equal(tiles[2], training[index])
