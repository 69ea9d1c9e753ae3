"""Checks of what a backbone is given to paint with.

Legend: N images, L num_ws, D w_dim, r resolution of a layer.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import torch

from labelmint_export.errors import GeneratorError
from labelmint_export.generator.config import BackboneConfig, NoiseMode, TapSpec

NOISE_MODES = get_args(NoiseMode)


def check_ws(ws: torch.Tensor, config: BackboneConfig) -> None:
    """Check that ws [N, L, D] are a generator's.

    Raises:
        GeneratorError: They have another shape.
    """
    expected = (config.num_ws, config.w_dim)
    if ws.ndim != 3 or ws.shape[1:] != expected:
        raise GeneratorError(
            f"ws has shape {list(ws.shape)}, expected [N, {expected[0]}, {expected[1]}]; map z with this generator",
            field="ws",
        )


def check_noise(
    noise_mode: NoiseMode, noise: Mapping[str, torch.Tensor], layers: Sequence[TapSpec], count: int
) -> None:
    """Check the noise mode, and noise that was given layer by layer.

    Raises:
        GeneratorError: There is no such mode, or the noise names no layer or has another shape than
            [count or 1, 1, r, r].
    """
    if noise_mode not in NOISE_MODES:
        raise GeneratorError(
            f"noise_mode is {noise_mode!r}, expected one of {', '.join(NOISE_MODES)}", field="noise_mode"
        )
    sides = {layer.name: layer.resolution for layer in layers}
    for name, values in noise.items():
        if name not in sides:
            expected = f"layers of {', '.join(sides)}" if sides else "none: this generator has no noise"
            raise GeneratorError(f"noise names {name!r}, expected {expected}", field="noise")
        side = sides[name]
        if tuple(values.shape) not in {(1, 1, side, side), (count, 1, side, side)}:
            raise GeneratorError(
                f"noise of {name} has shape {list(values.shape)}, expected [{count} or 1, 1, {side}, {side}]",
                field="noise",
            )
