"""Pictures and their labels from latents.

Legend: N images, L num_ws, D w_dim, H rows, W columns.
"""

import numpy as np
import numpy.typing as npt
import torch

from labelmint.graphs import stack_name
from labelmint_export.errors import GeneratorError
from labelmint_export.gan.pictures import to_uint8
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_export.interpreter.labels import InterpreterOutput


def check_fit(generator: Backbone, interpreter: Interpreter) -> None:
    """Refuse an interpreter of another generator's shape.

    Raises:
        GeneratorError: A tap of the interpreter is not one of the generator's.
    """
    for tap in interpreter.config.taps:
        if tap not in generator.feature_specs:
            raise GeneratorError(
                f"the interpreter reads {tap.name} with {tap.channels} channels at {tap.resolution}, which the "
                "generator does not have; give the interpreter that was trained with this generator",
                field="taps",
            )


@torch.no_grad()
def label_ws(
    generator: Backbone, fused: FusedInterpreter, ws: torch.Tensor
) -> tuple[npt.NDArray[np.uint8], InterpreterOutput]:
    """Paint latents and label the pictures.

    Args:
        generator: In evaluation mode.
        fused: An interpreter whose taps the generator has.
        ws: float32 [N, L, D].

    Returns:
        Pictures uint8 [N, H, W, 3], and the labels.
    """
    painted = generator.synthesis(ws, "const")
    features = painted.features
    stacks = {
        stack_name(r): torch.cat([features[t.name] for t in fused.config.taps if t.resolution == r], dim=1)
        for r in fused.resolutions
    }
    return to_uint8(painted.image), fused(stacks)
