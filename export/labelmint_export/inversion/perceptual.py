"""How different two pictures look, without a network that would have to be downloaded.

Beside the Laplacian pyramid (`pyramid`): features of a network that knows these pictures, compared as LPIPS does (Zhang
et al. 2018) without its learned weights: unit length at each place, squared difference, mean.

Legend: N images, C channels, H rows, W columns.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from labelmint_export.errors import GeneratorError
from labelmint_export.gan.discriminator import Discriminator
from labelmint_export.gan.growing import load_networks
from labelmint_export.generator.config import BackboneConfig
from labelmint_export.generator.layers import downsample_2x
from labelmint_export.inversion.discriminators import TrunkConfig, read_discriminator
from labelmint_export.oracle.network import Segmenter, load_segmenter

Features = Callable[[torch.Tensor], list[torch.Tensor]]
"""float [N, C, H, W], [-1, 1] -> feature maps float [N, C_i, H_i, W_i]."""

UNIT_EPSILON = 1e-8
FOREIGN_SUFFIXES = (".pkl", ".pt", ".pth")


def feature_distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """Compare feature maps.

    Args:
        a: Maps float [N, C_i, H_i, W_i].
        b: Likewise.

    Returns:
        float [N], from 0 to 4.
    """
    distances = [(_unit(x) - _unit(y)).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
    return torch.stack(distances).mean(dim=0)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x * (x.square().sum(dim=1, keepdim=True) + UNIT_EPSILON).rsqrt()


def load_features(path: Path, config: BackboneConfig) -> Features:
    """Load a network whose features to compare.

    Args:
        path: A segmentation network (`.safetensors` from train-oracle), a folder of train-gan or keep-networks, whose
            discriminator is taken, or a snapshot of another program (`.pkl`, `.pt`) that holds one.
        config: Of the generator that paints.

    Raises:
        CheckpointError: The files are missing or malformed.
        GeneratorError: The discriminator judges pictures of another shape.
    """
    if path.is_dir():
        discriminator = load_networks(path).discriminator
        _check_judged(discriminator.config, config, path)
        return features_of_discriminator(discriminator)
    if path.suffix in FOREIGN_SUFFIXES:
        trunk = read_discriminator(path)
        _check_judged(trunk.config, config, path)
        return trunk
    return features_of_segmenter(load_segmenter(path))


def _check_judged(judged: BackboneConfig | TrunkConfig, painted: BackboneConfig, path: Path) -> None:
    if (judged.resolution, judged.image_channels) != (painted.resolution, painted.image_channels):
        raise GeneratorError(
            f"the discriminator in {path} judges pictures {judged.resolution} pixels wide of {judged.image_channels} "
            f"channels, expected {painted.resolution} and {painted.image_channels}; give the one of this generator",
            field="features",
        )


def features_of_segmenter(network: Segmenter) -> Features:
    """Features of every level of the encoder."""
    network.eval().requires_grad_(False)

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        return network.encode(image.expand(-1, 3, -1, -1))

    return features


def features_of_discriminator(network: Discriminator) -> Features:
    """Features behind every block."""
    network.eval().requires_grad_(False)

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = []
        for r in network.resolutions:
            maps.append(network.block(r)(maps[-1] if maps else None, image))
            if r > 8:
                image = downsample_2x(image, network.resample_filter)
        return maps

    return features
