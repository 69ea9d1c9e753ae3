"""In which precision a device multiplies fast."""

from collections.abc import Mapping

import torch

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
