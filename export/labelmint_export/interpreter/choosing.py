"""Choosing the pictures to annotate from many candidates.

Legend: N candidates, L num_ws, D w_dim, A annotated pictures, H rows, W columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from tqdm import tqdm

from labelmint.scores import image_score
from labelmint_export.annotations import AnnotatedSet
from labelmint_export.errors import AnnotationError
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.diversity import pick_farthest, pick_uncertain
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.interpreter.labelling import check_fit, label_ws, pictures_at_once
from labelmint_export.pictures import to_uint8

SAME_LATENT = 1e-4
"""Largest difference in w of two latents that paint one picture."""
LOOK_SIDE = 16
"""Pixels on a side of the small copies by which pictures are compared: parts and their colours, no texture."""


class Chosen(NamedTuple):
    """Latents of the pictures that were chosen."""

    z: torch.Tensor
    """float32 [count, z_dim]."""
    ws: torch.Tensor
    """float32 [count, L, D]."""
    scores: torch.Tensor | None = None
    """float32 [count]: their uncertainty, nats, if an interpreter looked at them."""
    pool_scores: torch.Tensor | None = None
    """float32 [N]: that of all candidates that are not annotated."""


def choose(
    generator: Backbone,
    z: torch.Tensor,
    ws: torch.Tensor,
    count: int,
    annotated: Sequence[AnnotatedSet] = (),
    interpreter: Interpreter | None = None,
    *,
    diverse: bool = False,
) -> Chosen:
    """Choose latents whose pictures are worth annotating.

    Args:
        generator: Paints them.
        z: float32 [N, z_dim].
        ws: float32 [N, L, D], of the same pictures.
        count: Pictures to choose.
        annotated: Sets of the same generator, whose pictures are not chosen again; picks lie apart from these too.
        interpreter: Choose those of which it is least sure.
        diverse: Choose those whose pictures differ most. Without both, the first ones are taken.

    Raises:
        AnnotationError: Too few candidates are left, or a set belongs to another generator.
        GeneratorError: The interpreter does not fit the generator.
    """
    fresh = ~_is_annotated(z, ws, annotated)
    z, ws = z[fresh], ws[fresh]
    if len(z) < count:
        raise AnnotationError(
            f"{len(z)} of {len(fresh)} candidates are not annotated yet, expected at least {count}; raise --candidates "
            "or give another --seed or --pick",
            field="candidates",
        )
    scores = None
    if interpreter is not None:
        covered = torch.cat([one.ws[:, 0] for one in annotated]) if annotated else None
        scores = score_latents(generator, interpreter, ws)
        chosen = pick_uncertain(ws[:, 0], scores, count, covered)
    elif diverse:
        seen = torch.cat([shrink_pictures(one.pictures) for one in annotated]) if annotated else None
        chosen = pick_farthest(look_at(generator, ws), count, seen)
    else:
        chosen = torch.arange(count)
    return Chosen(z[chosen], ws[chosen].contiguous(), None if scores is None else scores[chosen], scores)


def _is_annotated(z: torch.Tensor, ws: torch.Tensor, annotated: Sequence[AnnotatedSet]) -> torch.Tensor:
    """Say which candidates are in a set, by their latent or, whatever the truncation, by their z: bool [N]."""
    known = torch.zeros(len(z), dtype=torch.bool)
    for one in annotated:
        if one.z.shape[1:] != z.shape[1:] or one.ws.shape[1:] != ws.shape[1:]:
            raise AnnotationError(
                f"the annotated latents are z {list(one.z.shape)} and ws {list(one.ws.shape)}, expected [A, "
                f"{z.shape[1]}] and [A, {ws.shape[1]}, {ws.shape[2]}]; they belong to another generator",
                field="annotated",
            )
        for one_z, one_ws in zip(one.z, one.ws, strict=True):
            is_same_z = (z == one_z).all(dim=1) & one_z.any()  # zeros stand for none
            known |= is_same_z | ((ws - one_ws).abs().amax(dim=(1, 2)) <= SAME_LATENT)
    return known


def shrink_pictures(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Average the pixels of each field of a coarse grid: uint8 [N, H, W, 3] to float32 [N, 3 * LOOK_SIDE**2]."""
    planes = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()  # [N, 3, H, W]
    return functional.adaptive_avg_pool2d(planes, LOOK_SIDE).flatten(1)


@torch.no_grad()
def look_at(generator: Backbone, ws: torch.Tensor, batch_size: int = 4) -> torch.Tensor:
    """Paint pictures and keep small copies of them.

    Args:
        generator: Paints them, with its stored noise.
        ws: float32 [N, L, D].
        batch_size: Pictures at a time.

    Returns:
        float32 [N, 3 * LOOK_SIDE**2], levels of 255.
    """
    starts = tqdm(range(0, len(ws), batch_size), desc="candidates", unit="batch", mininterval=2.0)
    batches = (generator.synthesis(ws[start : start + batch_size], "const").image for start in starts)
    return torch.cat([shrink_pictures(to_uint8(image)) for image in batches])


def score_latents(generator: Backbone, interpreter: Interpreter, ws: torch.Tensor) -> torch.Tensor:
    """Compute how unsure an interpreter is of pictures: the image score that the service delivers and filters by.

    Args:
        generator: Paints the pictures.
        interpreter: Looks at them.
        ws: float32 [N, L, D].

    Returns:
        float32 [N]: mean of the most uncertain tenth of the pixels, nats.

    Raises:
        AnnotationError: A picture or its labels are not finite.
        GeneratorError: The interpreter does not fit the generator.
    """
    check_fit(generator, interpreter)
    fused, batch_size = FusedInterpreter(interpreter), pictures_at_once(interpreter.config.label_resolution)
    scores = []
    for start in tqdm(range(0, len(ws), batch_size), desc="uncertainty", unit="batch", mininterval=2.0):
        _, output = label_ws(generator, fused, ws[start : start + batch_size])
        if not bool(output.finite.all()):
            raise AnnotationError(
                f"the labels of candidates {start} to {start + batch_size - 1} are not finite; train the interpreter "
                "anew",
                field="interpreter",
            )
        scores.append(image_score(output.uncertainty_map.numpy().astype(np.float16)))
    return torch.from_numpy(np.concatenate(scores))
