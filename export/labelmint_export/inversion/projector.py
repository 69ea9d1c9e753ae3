"""Projection of pictures into W+, by optimisation.

After Karras et al. 2020 (StyleGAN2), section 5 and appendix D: Adam from the mean w, a learning rate that ramps up and
down, noise on w that fades while the place is still searched for. Different here: no VGG (see `perceptual`); after a
first part with one w for all layers each layer gets its own, held near to the common one and to the mean, so that the
features stay those of pictures the interpreter knows; the noise planes stay the generator's own, because these paint
the picture again when the interpreter is trained.

Legend: N images, L num_ws, D w_dim, H rows, W columns.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from labelmint_export.errors import GeneratorError, TrainingError
from labelmint_export.generator import Backbone
from labelmint_export.generator.drawing import draw_latents
from labelmint_export.inversion.perceptual import Features, feature_distance
from labelmint_export.pictures import normalize, to_uint8
from labelmint_export.pyramid import laplacian_levels
from labelmint_export.ranges import require_at_least, require_positive
from labelmint_export.reserved_seeds import STATISTICS_SEED


@dataclass(frozen=True, kw_only=True, slots=True)
class InversionSettings:
    """How pictures are projected."""

    steps: int = 500
    """Of the optimiser."""
    learning_rate: float = 0.1
    """Adam's, between the ramps, in units of the deviation of w."""
    common_share: float = 0.4
    """Part of the steps in which all layers have one w."""
    feature_weight: float = 1.0
    """Of the features' distance beside the pyramid's."""
    spread_weight: float = 0.002
    """Of the mean square of the layers' differences to the common w, in units of the deviation of w."""
    mean_weight: float = 0.001
    """Of the mean square of the common w's difference to the mean, in the same units."""
    noise: float = 0.05
    """Of w at the start, in the same units; gone after three quarters of the steps."""
    batch_size: int = 4
    """Pictures at a time."""
    num_statistics: int = 2000
    """Latents that give the deviation of w."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            TrainingError: A field is out of range.
        """
        require_at_least(self, 1, "steps", "batch_size")
        require_at_least(self, 2, "num_statistics")
        require_at_least(self, 0, "feature_weight", "spread_weight", "mean_weight", "noise")
        require_positive(self, "learning_rate")
        if not 0 <= self.common_share <= 1:
            raise TrainingError(f"common_share is {self.common_share}, expected 0 to 1", field="common_share")


class Inversion(NamedTuple):
    """What a generator makes of pictures."""

    ws: torch.Tensor
    """float32 [N, L, D]."""
    pictures: npt.NDArray[np.uint8]
    """uint8 [N, H, W, 3]: painted from ws."""
    error: npt.NDArray[np.float64]
    """float64 [N]: mean absolute difference to the pictures that were asked for, levels of 255."""


def project(
    generator: Backbone,
    targets: npt.NDArray[np.uint8],
    features: Features | None,
    settings: InversionSettings,
    class_index: int | None = None,
) -> Inversion:
    """Find latents that paint pictures.

    A picture's result does not depend on the others, but for rounding.

    Args:
        generator: In evaluation mode, without gradients.
        targets: uint8 [N, H, W, 3].
        features: Whose distances count too; None: the pyramid alone.
        settings: How.
        class_index: Class of all pictures, from whose mean w the search starts; None starts from the mean of all
            classes.

    Raises:
        GeneratorError: The pictures are not of the generator's size, or the class is none of the generator's.
        TrainingError: The loss is not finite.
    """
    side = generator.config.resolution
    if targets.ndim != 4 or targets.shape[1:] != (side, side, 3) or targets.dtype != np.uint8 or not len(targets):
        raise GeneratorError(
            f"the pictures are {targets.dtype} {list(targets.shape)}, expected uint8 [N, {side}, {side}, 3]",
            field="targets",
        )
    mean, deviation = _statistics(generator, settings.num_statistics, class_index)
    found = [
        _project_batch(generator, targets[start : start + settings.batch_size], features, settings, mean, deviation)
        for start in range(0, len(targets), settings.batch_size)
    ]
    ws = torch.cat(found)
    pictures = np.concatenate([_paint(generator, one[None]) for one in ws])
    error = np.abs(pictures.astype(np.float64) - targets).mean(axis=(1, 2, 3))
    return Inversion(ws, pictures, error)


@torch.no_grad()
def _statistics(generator: Backbone, count: int, class_index: int | None) -> tuple[torch.Tensor, float]:
    """Mean of w [D], of one class if one is given, and its deviation, root mean square over latents and entries."""
    z, c = draw_latents(generator.config, STATISTICS_SEED, np.arange(count, dtype=np.uint64), class_index)
    w = generator.mapping(z, c)[:, 0]
    mean = generator.w_avg if class_index is None else w.mean(dim=0)
    return mean, float((w - mean).square().mean().sqrt().clamp(min=1e-6))


@torch.no_grad()
def _paint(generator: Backbone, ws: torch.Tensor) -> npt.NDArray[np.uint8]:
    return to_uint8(generator.synthesis(ws, "const").image)


def _rate(phase: float) -> float:
    """Karras et al. 2020, appendix D: a linear ramp up over 5 %, a cosine down over the last 25 %."""
    down = min(1.0, (1.0 - phase) / 0.25)
    return (0.5 - 0.5 * math.cos(down * math.pi)) * min(1.0, phase / 0.05)


def _project_batch(
    generator: Backbone,
    targets: npt.NDArray[np.uint8],
    features: Features | None,
    settings: InversionSettings,
    mean: torch.Tensor,
    deviation: float,
) -> torch.Tensor:
    """Project a few pictures: float32 [N, L, D]."""
    wanted = normalize(torch.from_numpy(targets))  # [N, 3, H, W]
    if generator.config.image_channels == 1:
        wanted = wanted.mean(dim=1, keepdim=True)
    with torch.no_grad():
        wanted_features = features(wanted) if features is not None else []
    common = torch.zeros(len(wanted), 1, generator.config.w_dim, requires_grad=True)
    apart = torch.zeros(len(wanted), generator.config.num_ws, generator.config.w_dim, requires_grad=True)
    optimizer = torch.optim.Adam([common, apart], betas=(0.9, 0.999))
    random = torch.Generator().manual_seed(0)
    bar = tqdm(range(settings.steps), desc="invert", unit="step", mininterval=2.0, dynamic_ncols=True)
    for step in bar:
        phase = (step + 1) / settings.steps
        alone = phase <= settings.common_share
        fade = settings.noise * max(0.0, 1.0 - phase / 0.75) ** 2
        shaken = common + fade * torch.randn(1, 1, generator.config.w_dim, generator=random)
        image = generator.synthesis(mean + deviation * (shaken + apart), "const").image
        loss = laplacian_levels(image, wanted).mean(dim=0)
        if features is not None:
            loss = loss + settings.feature_weight * feature_distance(features(image), wanted_features)
        loss = loss + settings.mean_weight * common.square().mean(dim=(1, 2))
        loss = loss + settings.spread_weight * apart.square().mean(dim=(1, 2))
        optimizer.param_groups[0]["lr"] = settings.learning_rate * _rate(phase)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
        if alone:
            apart.grad = None  # the layers stay together
        optimizer.step()
        if not bool(torch.isfinite(loss).all()):
            raise TrainingError(
                f"the loss is not finite at step {step}; lower the learning rate", field="learning_rate"
            )
        if step % 20 == 0:
            bar.set_postfix(loss=f"{float(loss.detach().mean()):.4f}")
    return (mean + deviation * (common + apart)).detach()
