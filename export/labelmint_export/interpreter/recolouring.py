"""Annotated pictures in other colours: more to learn from, nothing more to draw.

StyleGAN's layers from 64 x 64 on decide about colours and fine texture, those before about shapes (Karras et al. 2019,
"A Style-Based Generator Architecture", section 3.1). So a picture that keeps its own w up to there and takes the w of
another one behind it shows the same parts in the same places, in other colours: its labels are known already.

Legend: N annotated pictures, R copies of each, L num_ws.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.annotations import AnnotatedSet
from labelmint_export.errors import TrainingError
from labelmint_export.gan.pictures import save_grid, to_uint8
from labelmint_export.generator import Backbone

FINE_SIDE = 64
"""Resolution from which on a layer decides about colours."""


def first_fine_w(generator: Backbone) -> int:
    """Give the index of the first w whose layer works at FINE_SIDE or above."""
    return sum(tap.resolution < FINE_SIDE for tap in generator.tap_specs)


def recolour(generator: Backbone, annotated: AnnotatedSet, copies: int, first_w: int | None = None) -> AnnotatedSet:
    """Put recoloured copies behind annotated pictures.

    Args:
        generator: What painted them.
        annotated: N pictures with labels.
        copies: R, of each picture; the colours of every copy are those of another annotated picture.
        first_w: Index of the first w that is the other picture's; None takes `first_fine_w`.

    Returns:
        (1 + R) N pictures: number i + r N is copy r of picture i, with its labels.

    Raises:
        TrainingError: There are not so many other pictures, or `first_w` is no inner layer.
    """
    count, num_ws = len(annotated), generator.config.num_ws
    if not 0 <= copies < count:
        raise TrainingError(
            f"recoloured_copies is {copies}, expected 0 to {count - 1}: each copy of a picture takes its colours from "
            f"another one of the {count} annotated pictures",
            field="recoloured_copies",
        )
    if copies == 0:
        return annotated
    first_w = first_fine_w(generator) if first_w is None else first_w
    if not 1 <= first_w < num_ws:
        raise TrainingError(
            f"recolour_from is {first_w}, expected 1 to {num_ws - 1}, a w behind which only colours change; by default "
            f"that of the first layer at {FINE_SIDE} x {FINE_SIDE}, which smaller generators do not have",
            field="recolour_from",
        )
    parts = [annotated]
    for copy in range(copies):
        shift = 1 + copy * (count - 1) // copies  # no two copies of a picture have the same colours
        ws = torch.cat([annotated.ws[:, :first_w], annotated.ws.roll(-shift, dims=0)[:, first_w:]], dim=1)
        parts.append(replace(annotated, pictures=_paint(generator, ws), ws=ws))
    return replace(
        annotated,
        pictures=np.concatenate([part.pictures for part in parts]),
        masks=np.concatenate([part.masks for part in parts]),
        keypoints=np.concatenate([part.keypoints for part in parts]),
        z=torch.cat([part.z for part in parts]),
        ws=torch.cat([part.ws for part in parts]),
        names=(),
    )


def save_recoloured(recoloured: AnnotatedSet, copies: int, path: Path) -> None:
    """Write a PNG to judge by: a row for each annotated picture, its copies behind it.

    Args:
        recoloured: From `recolour`.
        copies: R.
        path: File to write.
    """
    pictures = recoloured.pictures
    rows = pictures.reshape(1 + copies, -1, *pictures.shape[1:]).swapaxes(0, 1)
    save_grid(rows.reshape(pictures.shape), 1 + copies, path)


@torch.no_grad()
def _paint(generator: Backbone, ws: torch.Tensor) -> npt.NDArray[np.uint8]:
    return np.concatenate([to_uint8(generator.synthesis(one, "const").image) for one in torch.split(ws, 1)])
