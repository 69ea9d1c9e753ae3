"""Keypoints to heatmaps and back."""

from __future__ import annotations

import math

import pytest
import torch

from labelmint_export.heatmaps import encode_heatmaps, find_peaks, heatmap_values


def test_heatmap_is_the_gaussian_at_pixel_centres() -> None:
    heatmap = encode_heatmaps(torch.tensor([[[2.3, 1.1, 1.0]]]), 4, 6, sigma_pixels=1.5)
    assert heatmap.shape == (1, 1, 4, 6)
    for row in range(4):
        for column in range(6):
            squared = (column + 0.5 - 2.3) ** 2 + (row + 0.5 - 1.1) ** 2
            assert heatmap[0, 0, row, column] == pytest.approx(math.exp(-squared / (2 * 1.5**2)), abs=1e-6)


def test_invisible_keypoint_has_an_empty_heatmap() -> None:
    heatmaps = encode_heatmaps(torch.tensor([[[4.0, 4.0, 0.0], [4.0, 4.0, 1.0]]]), 8, 8, 2.0)
    assert float(heatmaps[0, 0].abs().max()) == 0.0
    assert float(heatmaps[0, 1].max()) > 0.9


def test_single_pixels_are_those_of_the_whole_heatmap() -> None:
    random = torch.Generator().manual_seed(0)
    keypoints = torch.rand(3, 4, 3, generator=random) * torch.tensor([10.0, 8.0, 1.0])
    whole = encode_heatmaps(keypoints, 8, 10, 1.3)
    images, rows, columns = (torch.randint(n, (5, 7), generator=random) for n in (3, 8, 10))
    values = heatmap_values(keypoints[images], rows, columns, 1.3)
    torch.testing.assert_close(values, whole[images, :, rows, columns], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0])
def test_peaks_of_gaussians_are_found_below_a_twentieth_of_a_pixel(sigma: float) -> None:
    random = torch.Generator().manual_seed(0)
    keypoints = torch.ones(50, 4, 3)
    keypoints[..., 0] = 1.5 + torch.rand(50, 4, generator=random) * 29  # a pixel away from the border
    keypoints[..., 1] = 1.5 + torch.rand(50, 4, generator=random) * 21
    peaks = find_peaks(encode_heatmaps(keypoints, 24, 32, sigma))
    assert float((peaks[..., :2] - keypoints[..., :2]).abs().max()) < 0.05
    assert float(peaks[..., 2].min()) > 0.85


@pytest.mark.parametrize(
    ("point", "expected"),
    [((0.1, 5.0), (0.5, 5.0)), ((9.9, 5.0), (9.5, 5.0)), ((5.0, 0.2), (5.0, 0.5)), ((5.0, 7.8), (5.0, 7.5))],
)
def test_peak_in_a_border_pixel_is_not_refined_across_the_border(
    point: tuple[float, float], expected: tuple[float, float]
) -> None:
    peak = find_peaks(encode_heatmaps(torch.tensor([[[*point, 1.0]]]), 8, 10, 2.0))[0, 0]
    torch.testing.assert_close(peak[:2], torch.tensor(expected), rtol=0, atol=1e-5)


def test_first_of_equal_values_wins() -> None:
    heatmap = torch.zeros(1, 1, 5, 7)
    heatmap[0, 0, 1, 5] = heatmap[0, 0, 3, 1] = 2.0
    assert find_peaks(heatmap)[0, 0].tolist() == [5.5, 1.5, 2.0]


def test_flat_heatmap_gives_the_first_pixel() -> None:
    assert find_peaks(torch.full([1, 1, 4, 4], 0.25))[0, 0].tolist() == [0.5, 0.5, 0.25]


def test_plateau_of_two_gives_the_middle() -> None:
    heatmap = torch.zeros(1, 1, 5, 7)
    heatmap[0, 0, 2, 3] = heatmap[0, 0, 2, 4] = 1.0
    assert find_peaks(heatmap)[0, 0].tolist() == [4.0, 2.5, 1.0]


def test_refinement_is_the_vertex_of_the_parabola_and_at_most_half_a_pixel() -> None:
    heatmap = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    heatmap[0, 0, 2, 1:4] = torch.tensor([1.0, 4.0, 3.0])
    heatmap[0, 0, 1:4, 2] = torch.tensor([4.0 - 1e-9, 4.0, -50.0], dtype=torch.float64)
    x, y, score = find_peaks(heatmap)[0, 0].tolist()
    assert x == pytest.approx(2.5 + (3.0 - 1.0) / (2 * (2 * 4.0 - 1.0 - 3.0)))
    assert y == pytest.approx(2.0, abs=1e-6)
    assert score == 4.0


def test_negative_heatmaps_have_peaks_too() -> None:
    heatmap = torch.full([1, 1, 4, 4], -3.0)
    heatmap[0, 0, 2, 2] = -1.0
    assert find_peaks(heatmap)[0, 0].tolist() == [2.5, 2.5, -1.0]
