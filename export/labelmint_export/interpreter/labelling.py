"""Pictures and their labels from latents.

Legend: N images, L num_ws, D w_dim, H rows, W columns.
"""

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.errors import GeneratorError
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter, stack_taps
from labelmint_export.interpreter.labels import InterpreterOutput
from labelmint_export.pictures import to_uint8


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


def pictures_at_once(label_resolution: int) -> int:
    """How many pictures to label in a pass: beside a strip stand planes of all hidden units, half as high as labels.

    Those of one picture take 0.7 GB at 512 x 512 (1,280 hidden units), and onnxruntime holds several of them.
    """
    return max(1, min(4, 512 // label_resolution))


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
    return to_uint8(painted.image), fused(stack_taps(painted.features, fused.config.taps))
