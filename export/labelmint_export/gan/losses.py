"""Losses of StyleGAN2: non-saturating logistic, lazy R1, lazy path length.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", sections 3.1 and 3.2, appendix B.
Each function computes one loss and back-propagates it. Regularisers run every few steps with the interval as factor.

Legend: N images, L num_ws, D w_dim.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from labelmint_export.gan.augment import augment
from labelmint_export.gan.discriminator import Discriminator
from labelmint_export.generator import Generator


@dataclass(frozen=True, slots=True)
class LossContext:
    """What every loss needs."""

    generator: Generator
    discriminator: Discriminator
    compute_dtype: torch.dtype
    augment_p: float
    style_mixing: float


def sample_ws(context: LossContext, z: torch.Tensor, w_avg_beta: float | None) -> torch.Tensor:
    """Map z [N, z_dim] to ws [N, L, D], mixing two styles at a random layer in a share of the pictures.

    Args:
        context: Networks and settings.
        z: float32 [N, z_dim].
        w_avg_beta: If given, the running mean of w moves with this decay.

    Returns:
        float32 [N, L, D].
    """
    mapping = context.generator.mapping
    w = mapping.map_to_w(z)
    if w_avg_beta is not None:
        mapping.w_avg.copy_(w.detach().mean(dim=0).lerp(mapping.w_avg, w_avg_beta))
    num_ws = context.generator.config.num_ws
    ws = w[:, None, :].expand(-1, num_ws, -1)
    if context.style_mixing > 0:
        other = mapping.map_to_w(torch.randn_like(z))[:, None, :]
        cut = torch.randint(1, num_ws, [z.shape[0], 1, 1], device=z.device)
        mixed = torch.rand([z.shape[0], 1, 1], device=z.device) < context.style_mixing
        layer = torch.arange(num_ws, device=z.device)[None, :, None]
        ws = torch.where(mixed & (layer >= cut), other, ws)
    return ws


def generator_step(context: LossContext, z: torch.Tensor, w_avg_beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Back-propagate softplus(-D(G(z))) into the generator.

    Args:
        context: Networks and settings.
        z: float32 [N, z_dim].
        w_avg_beta: Decay of the running mean of w.

    Returns:
        The loss, float [], and the pictures that were painted, float32 [N, C, H, W], detached.
    """
    ws = sample_ws(context, z, w_avg_beta)
    image = context.generator.synthesis(ws, "random", compute_dtype=context.compute_dtype).image
    logits = context.discriminator(augment(image, context.augment_p), context.compute_dtype)
    loss = functional.softplus(-logits).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    return loss.detach(), image.detach()


def discriminator_step(
    context: LossContext, real: torch.Tensor, fake: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Back-propagate softplus(D(fake)) + softplus(-D(real)) into the discriminator.

    Args:
        context: Networks and settings.
        real: float32 [N, C, H, W], [-1, 1].
        fake: float32 [N, C, H, W], what `generator_step` painted: no picture is painted for the discriminator alone.

    Returns:
        The loss, float [], and the logits of the real pictures, float32 [N].
    """
    fake_logits = context.discriminator(augment(fake, context.augment_p), context.compute_dtype)
    fake_loss = functional.softplus(fake_logits).mean()
    fake_loss.backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    real_logits = context.discriminator(augment(real, context.augment_p), context.compute_dtype)
    real_loss = functional.softplus(-real_logits).mean()
    real_loss.backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    return (fake_loss + real_loss).detach(), real_logits.detach()


def r1_step(context: LossContext, real: torch.Tensor, gamma: float, interval: int) -> torch.Tensor:
    """Back-propagate gamma / 2 * |grad D(real)|^2 (Mescheder et al. 2018), in float32; returns the mean square."""
    real = augment(real, context.augment_p).detach().requires_grad_(True)
    logits = context.discriminator(real)
    (gradient,) = torch.autograd.grad(logits.sum(), [real], create_graph=True)
    penalty = gradient.square().sum(dim=[1, 2, 3]).mean()
    (penalty * (gamma / 2 * interval)).backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    return penalty.detach()


def path_length_step(
    context: LossContext, z: torch.Tensor, mean: torch.Tensor, weight: float, interval: int
) -> torch.Tensor:
    """Back-propagate (|J_w^T y| - a)^2 into the generator, in float32, and move the mean a.

    Args:
        context: Networks and settings.
        z: float32 [N, z_dim].
        mean: float32 [], the running mean of the lengths; updated in place with decay 0.01.
        weight: Factor of the penalty.
        interval: Steps between two calls.

    Returns:
        Mean path length, float [].
    """
    ws = sample_ws(context, z, None)
    image = context.generator.synthesis(ws, "random").image
    noise = torch.randn_like(image) / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * noise).sum(), [ws], create_graph=True)
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    mean.copy_(mean.lerp(lengths.detach().mean(), 0.01))
    penalty = (lengths - mean).square().mean()
    (penalty * (weight * interval)).backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    return lengths.detach().mean()
