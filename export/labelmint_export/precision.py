"""Precisions: their names, how far outputs may be off in them, which one a device is fast in, and computing in it."""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch

Precision = Literal["float32", "float16", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

NOT_ROUNDED = "in float32 (no float16 arithmetic on this device)"
"""How onnxruntime computes a graph in float16 on a processor."""

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

_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Of x86 processors and, the last one, of Arm's."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """Choose what feature maps are computed in: bfloat16 where the device has instructions for it, else float32.

    A processor without them computes convolutions in bfloat16 by plain loops, several times slower than in float32.
    """
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions of torch have it
        has_bfloat16 = any(known.get(name) for name in _BFLOAT16_INSTRUCTIONS)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def computing_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Round what convolutions and matrix products take to a dtype; float32 is left as it is.

    Not to be held over an optimiser's step: autocast keeps the weights that it rounded first.
    """
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
