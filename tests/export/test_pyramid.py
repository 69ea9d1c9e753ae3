"""Laplacian pyramids against a plain one."""

import numpy as np
import torch

from labelmint_export.pyramid import laplacian_levels

LINE = np.array([1.0, 3.0, 3.0, 1.0]) / 8


def halved(x: np.ndarray) -> np.ndarray:
    """Low-pass and every second pixel of [H, W], zeros around."""
    padded = np.pad(x, 1)
    half = x.shape[0] // 2
    rows = np.stack([LINE @ padded[2 * i : 2 * i + 4] for i in range(half)])
    return np.stack([rows[:, 2 * j : 2 * j + 4] @ LINE for j in range(half)], axis=1)


def doubled(x: np.ndarray) -> np.ndarray:
    """The transpose of `halved`, times four."""
    side = x.shape[0]
    spread = np.zeros((2 * side + 2, 2 * side + 2))
    for i in range(side):
        for j in range(side):
            spread[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += 4 * x[i, j] * np.outer(LINE, LINE)
    return spread[1:-1, 1:-1]


def test_levels_are_those_of_a_plain_pyramid() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 2, 3, 16, 16))
    expected = []
    planes = list((a - b).reshape(-1, 16, 16))
    while planes[0].shape[0] > 4:
        low = [halved(plane) for plane in planes]
        fine = [np.abs(plane - doubled(less)) for plane, less in zip(planes, low, strict=True)]
        expected.append(np.mean(np.reshape(fine, (2, -1)), axis=1))
        planes = low
    expected.append(np.mean(np.abs(np.reshape(planes, (2, -1))), axis=1))
    got = laplacian_levels(torch.from_numpy(a).float(), torch.from_numpy(b).float())
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)


def test_equal_pictures_differ_on_no_level() -> None:
    assert laplacian_levels(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)).tolist() == [[0.0], [0.0]]
