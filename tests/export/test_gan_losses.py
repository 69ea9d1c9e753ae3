"""Losses against values that follow by hand, on networks simple enough for that."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from labelmint_export.gan.discriminator import Discriminator, minibatch_deviation
from labelmint_export.gan.losses import (
    LossContext,
    discriminator_step,
    generator_step,
    path_length_step,
    r1_step,
    sample_ws,
)
from labelmint_export.generator import Generator, SynthesisOutput
from tests.export.tiny_parts import make_config, make_generator


class LinearDiscriminator(nn.Module):
    """Logit = <weight, picture>: its gradient is the weight, everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 4))

    def forward(self, image: torch.Tensor, compute_dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (image * self.weight).sum(dim=[1, 2, 3])


class LinearGenerator(nn.Module):
    """Pictures that are a matrix times all ws."""

    def __init__(self, num_ws: int = 3, w_dim: int = 2) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_ws=num_ws, z_dim=w_dim)
        self.matrix = nn.Parameter(torch.randn(num_ws * w_dim, 3 * 4 * 4))
        self.scale = nn.Parameter(torch.ones([]))
        self.mapping = SimpleNamespace(map_to_w=lambda z: z * self.scale, w_avg=torch.zeros(w_dim))

    def synthesis(
        self, ws: torch.Tensor, noise_mode: str = "const", *, compute_dtype: torch.dtype = torch.float32
    ) -> SynthesisOutput:
        return SynthesisOutput(image=(ws.flatten(1) @ self.matrix).view(-1, 3, 4, 4))


def make_context(mixing: float = 0.0) -> tuple[LossContext, LinearGenerator, LinearDiscriminator]:
    torch.manual_seed(0)
    generator, discriminator = LinearGenerator(), LinearDiscriminator()
    context = LossContext(
        generator=cast(Generator, generator),
        discriminator=cast(Discriminator, discriminator),
        compute_dtype=torch.float32,
        augment_p=0.0,
        style_mixing=mixing,
    )
    return context, generator, discriminator


def test_r1_of_a_linear_discriminator_is_the_square_of_its_weight() -> None:
    context, _, discriminator = make_context()
    weight = discriminator.weight.detach().clone()
    penalty = r1_step(context, torch.randn(5, 3, 4, 4), gamma=0.5, interval=4)
    assert penalty == pytest.approx(float(weight.square().sum()), rel=1e-5)
    # d/dw of gamma / 2 * interval * |w|^2
    assert discriminator.weight.grad is not None
    torch.testing.assert_close(discriminator.weight.grad, 0.5 * 4 * weight, rtol=1e-5, atol=1e-6)


def test_r1_reaches_every_weight_of_the_real_discriminator() -> None:
    config = make_config()
    context, _, _ = make_context()
    discriminator = Discriminator(config, config.channels)
    real_context = LossContext(context.generator, discriminator, torch.float32, 0.0, 0.0)
    real = torch.randn(4, 3, 16, 16)
    penalty = r1_step(real_context, real, gamma=1.0, interval=1)
    x = real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), [x])
    assert penalty == pytest.approx(float(gradient.square().sum(dim=[1, 2, 3]).mean()), rel=1e-4)
    assert all(
        parameter.grad is not None for name, parameter in discriminator.named_parameters() if name.endswith("weight")
    )


def test_generator_loss_is_softplus_of_minus_the_logits() -> None:
    context, generator, discriminator = make_context()
    z = torch.randn(6, 2)
    logits = discriminator(generator.synthesis(z[:, None].expand(-1, 3, -1)).image).detach()
    loss, painted = generator_step(context, z, w_avg_beta=0.5)
    torch.testing.assert_close(painted, generator.synthesis(z[:, None].expand(-1, 3, -1)).image.detach())
    assert not painted.requires_grad
    assert loss == pytest.approx(float(torch.log1p(torch.exp(-logits.double())).mean()), rel=1e-5)
    assert generator.matrix.grad is not None
    torch.testing.assert_close(generator.mapping.w_avg, 0.5 * z.mean(dim=0))


def test_discriminator_loss_sees_both_sides_and_spares_the_generator() -> None:
    context, generator, discriminator = make_context()
    fake, real = torch.randn(6, 3, 4, 4), torch.randn(6, 3, 4, 4)
    fake_logits = discriminator(fake).detach().double()
    real_logits = discriminator(real).detach().double()
    loss, seen = discriminator_step(context, real, fake)
    expected = torch.log1p(torch.exp(fake_logits)).mean() + torch.log1p(torch.exp(-real_logits)).mean()
    assert loss == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(seen.double(), real_logits, rtol=1e-5, atol=1e-6)
    assert generator.matrix.grad is None
    assert discriminator.weight.grad is not None


def test_path_length_of_a_linear_generator_follows_from_its_matrix() -> None:
    context, generator, _ = make_context()
    mean = torch.tensor(0.7)
    z = torch.randn(5, 2)
    torch.manual_seed(9)
    length = path_length_step(context, z, mean, weight=2.0, interval=4)

    torch.manual_seed(9)
    y = (torch.randn(5, 3, 4, 4) / math.sqrt(16)).flatten(1)
    matrix = generator.matrix.detach().clone().requires_grad_(True)
    jacobian = (y @ matrix.T).view(5, 3, 2)  # J^T y for each w
    lengths = jacobian.square().sum(dim=2).mean(dim=1).sqrt()
    moved = 0.7 + 0.01 * (lengths.mean().detach() - 0.7)
    (2.0 * 4 * (lengths - moved).square().mean()).backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    assert length == pytest.approx(float(lengths.detach().mean()), rel=1e-5)
    assert float(mean) == pytest.approx(float(moved), rel=1e-5)
    assert generator.matrix.grad is not None
    assert matrix.grad is not None
    torch.testing.assert_close(generator.matrix.grad, matrix.grad, rtol=1e-4, atol=1e-5)


def test_style_mixing_changes_the_last_layers_only() -> None:
    generator = make_generator()
    context = LossContext(generator, cast(Discriminator, LinearDiscriminator()), torch.float32, 0.0, 1.0)
    z = torch.randn(64, 8)
    torch.manual_seed(3)
    ws = sample_ws(context, z, None)
    w = generator.mapping.map_to_w(z)
    same = (ws == w[:, None]).all(dim=2)  # [N, L]
    assert bool(same[:, 0].all())
    assert not bool(same[:, -1].any())
    assert bool((same.int().diff(dim=1) <= 0).all()), "a mixed picture goes back to its first style"
    assert set(same.sum(dim=1).tolist()) == {1, 2, 3, 4, 5}


def test_minibatch_deviation_by_hand() -> None:
    x = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    got = minibatch_deviation(x)
    assert got.shape == (8, 1, 2, 2)
    for image in range(8):
        group = x[image % 2 :: 2]  # pictures of one group lie N / G apart
        expected = group.var(dim=0, correction=0).add(1e-8).sqrt().mean()
        torch.testing.assert_close(got[image], expected.expand(1, 2, 2))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_minibatch_deviation_of_any_batch_size(count: int) -> None:
    got = minibatch_deviation(torch.randn(count, 2, 4, 4))
    assert got.shape == (count, 1, 4, 4)
    assert bool(torch.isfinite(got).all())
