"""Annotated pictures in other colours, by style mixing: more to learn from, nothing more to draw.

The styles of StyleGAN's layers from 64 x 64 on decide about colours and fine texture, those before about shapes (Karras
et al. 2019, "A Style-Based Generator Architecture", section 3.1). So a picture that keeps its own coarse styles and
takes the fine ones of another picture shows the same parts in the same places, in other colours: its labels are known.

Legend: N annotated pictures, R copies of each, L num_ws.
"""

from dataclasses import replace
from pathlib import Path

import torch

from labelmint_export.annotations import AnnotatedSet, concatenate
from labelmint_export.errors import TrainingError
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.painting import paint_annotated
from labelmint_export.pictures import paint, save_grid

FINE_SIDE = 64
"""Resolution from which on a layer decides about colours."""


def first_fine_w(generator: Backbone) -> int | None:
    """Give the index of the first w that decides about colours, or None where nothing is known about it.

    That is so without a layer at FINE_SIDE, and for StyleGAN3, whose layers are not those of the paper.
    """
    if generator.family == "stylegan3":
        return None
    fine = [w for w, tap in zip(generator.tap_ws, generator.tap_specs, strict=True) if tap.resolution >= FINE_SIDE]
    return min(fine, default=None)


def recolour(generator: Backbone, annotated: AnnotatedSet, copies: int, first_w: int | None = None) -> AnnotatedSet:
    """Put recoloured copies behind annotated pictures.

    Args:
        generator: What painted them.
        annotated: N pictures with labels.
        copies: R, at least 1; the colours of every copy are those of another annotated picture.
        first_w: Index of the first w that is the other picture's; None takes `first_fine_w`.

    Returns:
        (1 + R) N pictures: number i + r N is copy r of picture i, with its labels.

    Raises:
        AnnotationError: The pictures are not the generator's.
        TrainingError: There are not so many other pictures, or `first_w` is no inner layer's.
    """
    count = len(annotated)
    if not 1 <= copies < count:
        raise TrainingError(
            f"recoloured_copies is {copies}, expected 1 to {count - 1}: each copy of a picture takes its colours from "
            f"another one of the {count} annotated pictures",
            field="recoloured_copies",
        )
    first_w = choose_first_w(generator, first_w)
    for _ in paint_annotated(generator, annotated):
        pass  # refuses pictures of another generator before it paints copies
    parts = [annotated]
    for copy in range(copies):
        shift = 1 + copy * (count - 1) // copies  # no two copies of a picture have the same colours
        ws = torch.cat([annotated.ws[:, :first_w], annotated.ws.roll(-shift, dims=0)[:, first_w:]], dim=1)
        parts.append(replace(annotated, pictures=paint(generator, ws), ws=ws))
    return concatenate(parts, num_copies=copies)


def choose_first_w(generator: Backbone, wanted: int | None) -> int:
    """Check the index of the first w that is another picture's, or take the usual one.

    Raises:
        TrainingError: It is no inner layer's, or there is no usual one.
    """
    num_ws = generator.config.num_ws
    first_w = first_fine_w(generator) if wanted is None else wanted
    if first_w is None:
        why = (
            "StyleGAN3's"
            if generator.family == "stylegan3"
            else f"a generator's without one at {FINE_SIDE} x {FINE_SIDE}"
        )
        raise TrainingError(
            f"recolour_from is not given, expected 1 to {num_ws - 1}: which layers decide about colours alone is not "
            f"known of {why}; try some, and look at the sheet",
            field="recolour_from",
        )
    if not 1 <= first_w < num_ws:
        raise TrainingError(
            f"recolour_from is {first_w}, expected 1 to {num_ws - 1}: index of a w behind which only colours change",
            field="recolour_from",
        )
    return first_w


def save_recoloured(recoloured: AnnotatedSet, path: Path) -> None:
    """Write a PNG to judge by: a row for each annotated picture, its copies behind it.

    Args:
        recoloured: From `recolour`.
        path: File to write.
    """
    pictures, columns = recoloured.pictures, 1 + recoloured.num_copies
    rows = pictures.reshape(columns, -1, *pictures.shape[1:]).swapaxes(0, 1)
    save_grid(rows.reshape(pictures.shape), columns, path)
