"""The precisions of a target: what is rounded, what stays in float32, and how far the outputs may be off."""

from typing import Literal, get_args

import torch

from labelmint_export.errors import BuildError

Precision = Literal["float32", "float16", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

NOT_ROUNDED = "in float32 (no float16 arithmetic on this device)"
"""How onnxruntime computes a graph in float16 on a processor."""


def find_precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        BuildError: There is none.
    """
    for precision in PRECISIONS:
        if precision == name:
            return precision
    raise BuildError(f"precision is {name!r}, expected one of {', '.join(PRECISIONS)}", field="precision")


FLOAT32_PARTS = (
    "mapping and truncation",
    "styles and demodulation",
    "sum of the colours",
    "sums and resizing of the interpreter's first layer",
    "third layer of the interpreter",
    "softmax, vote and Jensen-Shannon divergence",
    "heatmaps and keypoint peaks",
)
"""What a half-precision graph keeps in float32. Rounded are the feature maps of synthesis, the taps, the matrix
products of the interpreter's first two layers and its hidden units."""

# name -> (tolerance, bound); measured against the float64 reference, see `comparing`. Half precision agrees on 99.5 %
# of the labels or is not fit for use; how far apart pictures and maps are follows from the length of the mantissa.
# The map is delivered in float16 at every precision, whose steps are 5e-4 at 0.5 nats.
TOLERANCES: dict[Precision, dict[str, tuple[float, str]]] = {
    "float32": {
        "image_max_error_levels": (1.0, "max"),
        "image_mean_error_levels": (0.01, "max"),
        "label_agreement": (0.9995, "min"),
        "uncertainty_max_error": (5e-3, "max"),
        "uncertainty_mean_error": (3e-4, "max"),
        "keypoints_within_0_05_px": (0.995, "min"),
        "keypoint_visibility_agreement": (0.995, "min"),
    },
    "float16": {
        "image_mean_error_levels": (0.25, "max"),
        "label_agreement": (0.995, "min"),
        "uncertainty_mean_error": (1e-3, "max"),
        "keypoints_within_0_5_px": (0.98, "min"),
        "keypoint_visibility_agreement": (0.98, "min"),
    },
    "bfloat16": {
        "image_mean_error_levels": (1.0, "max"),
        "label_agreement": (0.995, "min"),
        "uncertainty_mean_error": (5e-3, "max"),
        "keypoints_within_0_5_px": (0.95, "min"),
        "keypoint_visibility_agreement": (0.95, "min"),
    },
}
