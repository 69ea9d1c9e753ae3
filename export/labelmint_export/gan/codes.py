"""A code of its own for each picture: generative latent optimisation (Bojanowski et al. 2018).

An encoder has to find the w of a picture in one look, and what it does not see, synthesis never learns to paint: an
autoencoder stays with a blur where the eyebrows belong, although a few steps of descent on w alone would move them.
So once the autoencoder knows the large parts, every picture of the set gets a w of its own, which begins as what the
encoder says and then descends along the same gradients as synthesis. The encoder takes no part in it.

Legend: P coded pictures, N images, D w_dim, r resolution.
"""

import math
from dataclasses import dataclass

import torch

from labelmint_export.gan.autoencoder import decode, decoding_parameters, make_adam, picture_distance
from labelmint_export.gan.config import TrainConfig
from labelmint_export.gan.muon import Muon
from labelmint_export.generator import Generator

CUBE_WEIGHT = 30.0
"""A small part that is wholly wrong counts more than by its square."""
DEVIATION = 0.03
"""Of the noise on a code, in the units of w: what lies between two codes is painted too."""
DECAY = 1e-4
"""Pull of a code to the origin, distance for each unit."""
BETAS = (0.8, 0.95)
"""Adam's for the codes: each is seen once in an epoch."""
LAST_RATE = 0.1
"""Share of the learning rates that is left at the end of the stage."""


@dataclass(slots=True)
class Codes:
    """What the stage of codes adds to a training."""

    w: torch.Tensor
    """float32 [P, D], of the first P pictures of the set."""
    mean: torch.Tensor
    """float32 [P, D], Adam's running mean of each code's gradient."""
    square: torch.Tensor
    """float32 [P, D], Adam's running mean of its square."""
    kernels: Muon
    """Of the kernels of synthesis that see more than a pixel: with Muon, for the loss falls faster than with Adam."""
    optimizer: torch.optim.Adam
    """Of the rest of synthesis, without its noise."""

    @property
    def count(self) -> int:
        """P."""
        return len(self.w)


def make_codes(w: torch.Tensor, generator: Generator, config: TrainConfig) -> Codes:
    """Begin the stage.

    Args:
        w: float32 [P, D], where the codes start.
        generator: Whose synthesis learns.
        config: Of the training.
    """
    kernels: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for parameter in decoding_parameters(generator):
        (kernels if parameter.ndim == 4 and parameter.shape[-1] > 1 else others).append(parameter)
    optimizer = make_adam(others, config.learning_rate)
    return Codes(w.clone(), torch.zeros_like(w), torch.zeros_like(w), Muon(kernels, config.learning_rate), optimizer)


def share_of_rate(progress: float) -> float:
    """Fall from 1 to LAST_RATE along a cosine while progress goes from 0 to 1."""
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def code_step(
    generator: Generator,
    codes: Codes,
    indices: torch.Tensor,
    real: torch.Tensor,
    *,
    visits: int,
    rate_share: float,
    config: TrainConfig,
) -> torch.Tensor:
    """Move synthesis and the codes of some pictures one step towards these.

    Args:
        generator: Paints without noise.
        codes: Changed in place.
        indices: int64 [N], which pictures; none twice.
        real: float32 [N, C, r, r], these pictures, [-1, 1].
        visits: How often these codes were moved before.
        rate_share: What is left of the learning rates.
        config: Rates and dtype.

    Returns:
        Distance, as the autoencoder's: float [].
    """
    w = codes.w[indices]
    w = (w + DEVIATION * torch.randn_like(w)).requires_grad_(True)
    codes.kernels.zero_grad(set_to_none=True)
    codes.optimizer.zero_grad(set_to_none=True)
    image = decode(generator, w, getattr(torch, config.compute_dtype))
    distance = picture_distance(image, real)
    loss = distance + CUBE_WEIGHT * (image - real).abs().pow(3).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    rate = rate_share * config.learning_rate
    for optimizer in (codes.kernels, codes.optimizer):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    assert w.grad is not None
    _move(codes, indices, w.grad * len(indices), visits, rate_share * config.code_rate)
    return distance.detach()


@torch.no_grad()
def _move(codes: Codes, indices: torch.Tensor, gradient: torch.Tensor, visits: int, rate: float) -> None:
    """Take one step of Adam (Kingma and Ba 2015) with codes that are seen now and then."""
    gradient = gradient + DECAY * codes.w[indices]
    mean = codes.mean[indices].lerp(gradient, 1.0 - BETAS[0])
    square = codes.square[indices].lerp(gradient.square(), 1.0 - BETAS[1])
    codes.mean[indices], codes.square[indices] = mean, square
    mean = mean / (1.0 - BETAS[0] ** (visits + 1))
    square = square / (1.0 - BETAS[1] ** (visits + 1))
    codes.w[indices] -= rate * mean / (square.sqrt() + 1e-8)
