"""The generator as the decoder of a variational autoencoder (Kingma and Welling 2014; with a GAN, Larsen et al. 2016).

A discriminator tells a young generator little: it oscillates for hundreds of thousands of pictures before it paints two
eyes. A reconstruction tells it where every part belongs. So a training may start with reconstructions alone, and may
keep a few of them between its adversarial steps, where they hold on to the variety of the set.

The encoder finds w, not z: what synthesis reads. `prior` then teaches the mapping to go where the pictures are.

Legend: N images, C channels, D w_dim, r resolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from labelmint_export.gan.discriminator import PictureTrunk, PlainConv
from labelmint_export.generator import Generator, GeneratorConfig
from labelmint_export.generator.layers import FullyConnected
from labelmint_export.pyramid import laplacian_levels

LOG_VARIANCE_RANGE = (-8.0, 4.0)
SQUARE_WEIGHT = 24.0
FIRST_LOG_VARIANCE = -3.0
"""Of an untrained encoder: a wide distribution would drown what its mean says."""


class Encoder(PictureTrunk):
    """Picture -> normal distribution of the w that paints it.

    Args:
        config: Shape of the generator that decodes.
        channels: Feature maps at each resolution, as the discriminator's.
    """

    def __init__(self, config: GeneratorConfig, channels: Mapping[int, int]) -> None:
        super().__init__(config, channels)
        top = channels[4]
        self.conv = PlainConv(top, top, kernel=3)
        self.fc = FullyConnected(top * 16, 2 * config.w_dim, activation="lrelu")
        self.out = FullyConnected(2 * config.w_dim, 2 * config.w_dim)
        with torch.no_grad():
            self.out.bias[config.w_dim :] = FIRST_LOG_VARIANCE

    def forward(
        self, image: torch.Tensor, compute_dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode pictures.

        Args:
            image: float32 [N, image_channels, r, r], about [-1, 1].
            compute_dtype: dtype of the feature maps; the last layers are float32.

        Returns:
            Mean and logarithm of the variance, float32 [N, D] each.
        """
        x = self.conv(self.features(image, compute_dtype))
        mean, log_variance = self.out(self.fc(x.flatten(1))).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """How well the pictures of one step came back."""

    distance: torch.Tensor
    """float [], Laplacian and weighted squared distance, colour units of [-1, 1]."""
    divergence: torch.Tensor
    """float [], Kullback-Leibler divergence from the standard normal distribution, nats a picture."""


def divergence_from_normal(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of normal distributions from the standard one.

    Args:
        mean: float32 [N, D].
        log_variance: float32 [N, D].

    Returns:
        float32 [], nats a picture.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1).mean()


def decoding_parameters(generator: Generator) -> list[torch.nn.Parameter]:
    """Weights of synthesis that a reconstruction reaches: all but those of the noise."""
    return [p for name, p in generator.synthesis.named_parameters() if not name.endswith("noise_strength")]


def make_adam(parameters: list[torch.nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam with the usual betas: no adversary answers a reconstruction."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99), eps=1e-8, foreach=True)


def decode(generator: Generator, w: torch.Tensor, compute_dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Paint w [N, D] without noise: float [N, C, r, r]."""
    ws = w[:, None, :].expand(-1, generator.config.num_ws, -1)
    image: torch.Tensor = generator.synthesis(ws, "none", compute_dtype=compute_dtype).image
    return image


def picture_distance(image: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Laplacian distance, and the mean square with a weight.

    Small parts that are wholly wrong, such as eyes, must outweigh a slight error of colour in the whole background.

    Args:
        image: float [N, C, r, r].
        real: Likewise.

    Returns:
        float [], colour units of [-1, 1].
    """
    return laplacian_levels(image, real).sum(dim=0).mean() + SQUARE_WEIGHT * (image - real).square().mean()


def reconstruction_step(
    generator: Generator,
    encoder: Encoder,
    real: torch.Tensor,
    *,
    kl_weight: float,
    w_avg_beta: float,
    compute_dtype: torch.dtype,
) -> Reconstruction:
    """Back-propagate distance + kl_weight * divergence into synthesis and encoder.

    Args:
        generator: Paints without noise; its mean w moves, its mapping is not used.
        encoder: Of the same resolution.
        real: float32 [N, C, r, r], [-1, 1].
        kl_weight: Laplacian distance that a nat is worth.
        w_avg_beta: Decay of the running mean of w.
        compute_dtype: dtype of the feature maps.

    Returns:
        Distance and divergence.
    """
    mean, log_variance = encoder(real, compute_dtype)
    w = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    w_avg = generator.mapping.w_avg
    w_avg.copy_(w.detach().mean(dim=0).lerp(w_avg, w_avg_beta))
    image = decode(generator, w, compute_dtype)
    distance = picture_distance(image, real)
    divergence = divergence_from_normal(mean, log_variance)
    (distance + kl_weight * divergence).backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
    return Reconstruction(distance.detach(), divergence.detach())
