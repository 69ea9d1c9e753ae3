"""Painting annotated pictures again: features belong to the picture that was drawn on, or nothing is learned."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from labelmint_export.annotations import AnnotatedSet
from labelmint_export.errors import AnnotationError
from labelmint_export.generator import Backbone
from labelmint_export.pictures import to_uint8

MAX_PIXEL_DIFFERENCE = 8
"""Levels (of 255) by which the annotated picture may differ from what the generator paints now."""


def paint_annotated(generator: Backbone, annotated: AnnotatedSet) -> Iterator[Mapping[str, torch.Tensor]]:
    """Paint each annotated picture again and give its features.

    Yields:
        Layer name -> float32 [1, C, r, r].

    Raises:
        AnnotationError: A picture is not what the generator paints from its latent, or latents do not fit.
    """
    expected = (generator.config.num_ws, generator.config.w_dim)
    if tuple(annotated.ws.shape[1:]) != expected:
        raise AnnotationError(
            f"ws of the annotations has shape {list(annotated.ws.shape)}, expected [N, {expected[0]}, {expected[1]}]; "
            "the annotations belong to another generator",
            field="ws",
        )
    for index in range(len(annotated)):
        with torch.no_grad():
            output = generator.synthesis(annotated.ws[index : index + 1], "const")
        painted = to_uint8(output.image)[0]
        if painted.shape != annotated.pictures[index].shape:
            raise AnnotationError(
                f"picture {index} is {list(annotated.pictures[index].shape)}, "
                f"the generator paints {list(painted.shape)}",
                field="pictures",
            )
        difference = float(np.abs(painted.astype(np.int16) - annotated.pictures[index]).mean())
        if difference > MAX_PIXEL_DIFFERENCE:
            raise AnnotationError(
                f"picture {index} differs by {difference:.1f} levels from what the generator paints from its latent; "
                "annotate the pictures that `labelmint-export label` or `sample` wrote for this generator",
                field="pictures",
            )
        yield output.features
