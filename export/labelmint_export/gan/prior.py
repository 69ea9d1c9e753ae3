"""Teaching the mapping where the pictures of a set are, so that a random z gives a w that synthesis can paint.

An autoencoder knows the w of every picture, but not how to draw a new one. Two steps give the mapping that knowledge:

1. Flow matching (Lipman et al. 2023, "Flow Matching for Generative Modeling"; straight paths as in Liu et al. 2023)
   fits a velocity field that carries the distribution of the normalised z to that of the encoder's w. Following it is
   a deterministic function of z, and a one-to-one one.
2. The mapping network learns that function from many pairs (z, w), so that one pass through a few layers replaces the
   path.

No discriminator is needed for either, and both take minutes on two cores.

Legend: N vectors, D w_dim, which is z_dim too: a path does not leave its space.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from labelmint_export.gan.autoencoder import Encoder
from labelmint_export.gan.descent import descend
from labelmint_export.gan.muon import Muon
from labelmint_export.generator.backbone import MappingNetwork
from labelmint_export.generator.layers import normalize_second_moment
from labelmint_export.pictures import to_range
from labelmint_export.precision import computing_in

BATCH = 512
NUM_TIMES = 64
"""Of a batch of the field, one in each of so many equal parts of [0, 1]: what depends on the time alone is computed
once for several vectors, and no part is missed."""
WIDTH = 512
NUM_BLOCKS = 4
FREQUENCIES = 32
FLOW_RATE = 2e-3
FLOW_BETAS = (0.9, 0.99)
LARGEST_GRADIENT = 1.0
"""Longer ones of the field are cut to this length."""
MAPPING_RATE = 2.0
"""Root mean square by which a step after the warm-up changes the weights of a matrix, and Adam's rate for the biases;
the mapping multiplies weights by 0.01 / sqrt(inputs)."""
PATH_STEPS = 16
PAIRS_PER_STEP = 20
"""New pairs (z, w) for each step of the mapping, up to MAX_PAIRS."""
MAX_PAIRS = 200_000
HELD_OUT_SHARE = 20
"""One of so many pairs is not learned but measured with."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """Where an encoder sees the pictures of a set, or where their codes are."""

    mean: torch.Tensor
    """float32 [N, D]."""
    deviation: torch.Tensor
    """float32 [N, D], standard deviations."""


@dataclass(frozen=True, slots=True)
class PriorFit:
    """How well a mapping was taught."""

    flow_loss: float
    """Mean squared error of the velocity in units of the variance of w, over the last tenth of the steps."""
    mapping_error: float
    """Mean squared distance from the end of the path in the same units, on pairs that the mapping did not see."""


class VelocityField(nn.Module):
    """Residual network: place and time -> velocity.

    Args:
        dim: D.
        width: Of its layers.
    """

    frequencies: torch.Tensor

    def __init__(self, dim: int, width: int = WIDTH) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, math.log10(400), FREQUENCIES))
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.inward = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(width), *(nn.Linear(width, width) for _ in range(3))])
            for _ in range(NUM_BLOCKS)
        )
        self.outward = nn.Linear(width, dim)
        nn.init.zeros_(self.outward.weight)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Look up velocities.

        Args:
            x: float32 [N, D].
            time: float32 [T], [0, 1], where N is a multiple of T: each is that of N / T vectors that follow each other.

        Returns:
            float [N, D].
        """
        angles = time[:, None] * self.frequencies
        now = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        y = self.inward(x).unflatten(0, [len(time), -1])
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            normalise, first, condition, second = block
            y = y + second(functional.silu(first(normalise(y)) + condition(now)[:, None]))
        velocity: torch.Tensor = self.outward(y).flatten(0, 1)
        return velocity


@torch.no_grad()
def encode_set(
    encoder: Encoder, pictures: npt.NDArray[np.uint8], device: torch.device, compute_dtype: torch.dtype
) -> Posterior:
    """Encode every picture of a set.

    Args:
        encoder: Trained.
        pictures: uint8 [N, H, W, 3].
        device: Where the encoder is.
        compute_dtype: dtype of its feature maps.

    Returns:
        Means and standard deviations on that device.
    """
    means, deviations = [], []
    for start in tqdm(range(0, len(pictures), 200), desc="encode", unit="batch", mininterval=2.0):
        real = to_range(pictures[start : start + 200], encoder.config.resolution, device)
        mean, log_variance = encoder(real, compute_dtype)
        means.append(mean)
        deviations.append((log_variance / 2).exp())
    return Posterior(torch.cat(means), torch.cat(deviations))


def fit_mapping(
    mapping: MappingNetwork, posterior: Posterior, *, steps: int, compute_dtype: torch.dtype, width: int = WIDTH
) -> PriorFit:
    """Teach a mapping to draw w as the pictures are distributed; its mean w becomes that of the set.

    Random numbers come from torch's global generator.

    Args:
        mapping: Unconditional; changed in place.
        posterior: Where the pictures are.
        steps: Of the velocity field, and as many of the mapping.
        compute_dtype: dtype of the velocity field's products.
        width: Of the velocity field.

    Returns:
        How well it went.
    """
    device = posterior.mean.device
    centre = posterior.mean.mean(dim=0)
    scale = ((posterior.mean - centre).square().mean() + posterior.deviation.square().mean()).sqrt()
    normed = Posterior((posterior.mean - centre) / scale, posterior.deviation / scale)
    num_pairs = max(HELD_OUT_SHARE, min(MAX_PAIRS, PAIRS_PER_STEP * steps))
    field, flow_loss = fit_field(normed, steps, width, compute_dtype)
    z = normalize_second_moment(torch.randn([num_pairs, mapping.config.z_dim], device=device))
    w = follow(field, z, compute_dtype) * scale + centre
    error = _fit_to_pairs(mapping, z, w, scale, steps)
    mapping.w_avg.copy_(w.mean(dim=0))
    return PriorFit(flow_loss, error)


def fit_field(
    posterior: Posterior, steps: int, width: int = WIDTH, compute_dtype: torch.dtype = torch.float32
) -> tuple[VelocityField, float]:
    """Fit the velocities of straight paths from normalised normal vectors to vectors of a posterior.

    Args:
        posterior: About centred, about of unit variance.
        steps: Of Adam.
        width: Of the field.
        compute_dtype: dtype of its products.

    Returns:
        The field, and the mean squared error over the last tenth of the steps.
    """
    count, dim = posterior.mean.shape
    device = posterior.mean.device
    field = VelocityField(dim, width).to(device)

    def loss() -> torch.Tensor:
        chosen = torch.randint(count, [BATCH], device=device)
        noise = torch.randn([BATCH, dim], device=device)
        end = posterior.mean[chosen] + posterior.deviation[chosen] * noise
        begin = normalize_second_moment(torch.randn([BATCH, dim], device=device))
        time = (torch.arange(NUM_TIMES, device=device) + torch.rand([NUM_TIMES], device=device)) / NUM_TIMES
        share = time.repeat_interleave(BATCH // NUM_TIMES)[:, None]
        with computing_in(compute_dtype, device):
            velocity: torch.Tensor = field(begin + (end - begin) * share, time)
        return (velocity.float() - (end - begin)).square().mean()

    adam = torch.optim.Adam(field.parameters(), lr=FLOW_RATE, betas=FLOW_BETAS, foreach=True)
    return field, descend(field, loss, [adam], steps, "velocity field", largest_gradient=LARGEST_GRADIENT)


@torch.no_grad()
def follow(field: VelocityField, begin: torch.Tensor, compute_dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Follow the paths of a velocity field by Heun's rule.

    Args:
        field: The velocities.
        begin: float32 [N, D], places at time 0.
        compute_dtype: dtype of the field's products.

    Returns:
        float32 [N, D], places at time 1.
    """
    ends = []
    step = 1.0 / PATH_STEPS
    for x in tqdm(torch.split(begin, 2_000), desc="paths", unit="batch", mininterval=2.0):
        place = x
        for index in range(PATH_STEPS):
            time = x.new_full([1], index * step)
            with computing_in(compute_dtype, begin.device):
                first = field(place, time).float()
                second = field(place + step * first, time + step).float()
            place = place + step * (first + second) / 2
        ends.append(place)
    return torch.cat(ends)


def _fit_to_pairs(mapping: MappingNetwork, z: torch.Tensor, w: torch.Tensor, scale: torch.Tensor, steps: int) -> float:
    count = len(z) - len(z) // HELD_OUT_SHARE
    mapping.requires_grad_(True)

    def loss() -> torch.Tensor:
        chosen = torch.randint(count, [BATCH], device=z.device)
        return ((mapping.map_to_w(z[chosen]) - w[chosen]) / scale).square().mean()

    descend(mapping, loss, _make_mapping_optimizers(mapping), steps, "mapping")
    with torch.no_grad():
        return float(((mapping.map_to_w(z[count:]) - w[count:]) / scale).square().mean())


def _make_mapping_optimizers(mapping: MappingNetwork) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, Adam for the biases."""
    matrices = [parameter for parameter in mapping.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in mapping.parameters() if parameter.ndim != 2]
    return [
        Muon(matrices, MAPPING_RATE),
        torch.optim.Adam(others, lr=MAPPING_RATE, foreach=True),
    ]
