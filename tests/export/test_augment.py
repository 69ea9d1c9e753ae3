"""Adaptive augmentation: what the transformations do and how their probability moves."""

from __future__ import annotations

import itertools

import pytest
import torch

from labelmint_export.gan.augment import AdaptiveProbability, augment


def smooth_picture(channels: int = 3, side: int = 32) -> torch.Tensor:
    steps = torch.linspace(-1, 1, side)
    waves = [torch.sin(3 * steps[:, None] + k) * torch.cos(2 * steps[None, :] - k) for k in range(channels)]
    return torch.stack(waves)[None]


def test_probability_zero_is_the_identity() -> None:
    image = smooth_picture()
    assert augment(image, 0.0) is image


def test_transformations_that_do_not_happen_leave_the_picture_as_it_is() -> None:
    """With a probability of next to nothing the whole chain runs with neutral values."""
    image = smooth_picture().expand(4, -1, -1, -1)
    torch.testing.assert_close(augment(image, 1e-12), image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_shape_is_kept_and_values_are_finite(channels: int, p: float) -> None:
    torch.manual_seed(0)
    image = smooth_picture(channels, 16).repeat(64, 1, 1, 1)
    got = augment(image, p)
    assert got.shape == image.shape
    assert got.dtype == torch.float32
    assert bool(torch.isfinite(got).all())
    assert not torch.allclose(got, image)


def test_share_of_changed_pictures_follows_the_probability() -> None:
    torch.manual_seed(0)
    image = smooth_picture(side=16).repeat(400, 1, 1, 1)
    shares = [
        float(((augment(image, p) - image).abs().amax(dim=[1, 2, 3]) > 1e-3).float().mean()) for p in (0.02, 0.1, 1.0)
    ]
    # Some ten transformations happen independently: about 1 - (1 - p)^10 are changed.
    assert 0.05 < shares[0] < 0.35 < shares[1] < 0.9 < shares[2]


def test_gradient_is_that_of_finite_differences() -> None:
    image = smooth_picture(side=8).double().requires_grad_(True)
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(2)).double()

    def total(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return (augment(x.float(), 0.8).double() * weights).sum()

    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(3)).double()
    (gradient,) = torch.autograd.grad(total(image), [image])
    with torch.no_grad():
        difference = (total(image + 0.05 * direction) - total(image - 0.05 * direction)) / 0.1
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-3)
    assert float(gradient.abs().max()) > 0


def test_grey_axis_is_kept_by_hue_and_saturation() -> None:
    """A grey picture stays grey: every change of colour turns around or scales about the grey axis."""
    torch.manual_seed(1)
    grey = smooth_picture(1, 16).expand(32, 3, -1, -1)
    got = augment(grey, 1.0)
    torch.testing.assert_close(got, got.mean(dim=1, keepdim=True).expand_as(got), rtol=0, atol=1e-4)


def adaptive(p: float = 0.5, target: float = 0.6) -> AdaptiveProbability:
    return AdaptiveProbability(target=target, speed_images=100, p=p)


@pytest.mark.parametrize(("logits", "expected"), [([1.0, 2.0, 3.0, 4.0], 0.54), ([1.0, 1.0, -1.0, 1.0], 0.46)])
def test_probability_moves_towards_the_target(logits: list[float], expected: float) -> None:
    probability = adaptive()
    probability.observe(torch.tensor(logits))
    mean = probability.update()
    assert mean == pytest.approx(torch.tensor(logits).sign().mean().item())
    assert probability.p == pytest.approx(expected)


def test_probability_settles_where_the_sign_crosses_the_target() -> None:
    """A discriminator whose sign falls with p: mean sign 1 - p."""
    probability = adaptive(p=0.0)
    path = []
    for _ in range(200):
        positive = round((1 - probability.p / 2) * 100)
        signs = torch.cat([torch.ones(positive), -torch.ones(100 - positive)])
        for part in signs.chunk(2):
            probability.observe(part[: len(part) // 25])
        probability.observe(signs)
        probability.update()
        path.append(probability.p)
        probability.speed_images = 2000
    assert all(abs(p - 0.4) < 0.15 for p in path[-20:])
    assert all(abs(b - a) <= 0.06 for a, b in itertools.pairwise(path[1:]))


def test_probability_stays_between_zero_and_its_maximum() -> None:
    probability = adaptive(p=0.79)
    probability.observe(torch.ones(50))
    probability.update()
    assert probability.p == 0.8
    for _ in range(3):
        probability.observe(-torch.ones(50))
        probability.update()
    assert probability.p == 0.0


def test_target_zero_switches_the_augmentation_off() -> None:
    probability = adaptive(p=0.0, target=0.0)
    probability.observe(torch.ones(50))
    assert probability.update() == 1.0
    assert probability.p == 0.0


def test_signs_are_counted_exactly_over_many_batches() -> None:
    """In float32 a sum stops at 2^24."""
    probability = adaptive()
    probability.sign_sum, probability.sign_count = 2.0**24, 2**24  # as a saved training has them
    for part in (torch.tensor([1.0]), torch.tensor([0.5, -2.0, 3.0])):
        probability.observe(part)
    assert (float(probability.sign_sum), probability.sign_count) == (2**24 + 2, 2**24 + 4)
    assert float(probability.update()) == (2**24 + 2) / (2**24 + 4)


def test_update_without_observation_changes_nothing() -> None:
    probability = adaptive()
    assert probability.update() == 0.0
    assert probability.p == 0.5
