"""Products of float16 on a processor, as tensor cores take them: sums in float32, rounded once.

torch's own kernels round likewise, but where a processor has no instructions for float16 their convolutions are plain
loops, which take a hundred times as long.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = {torch.ops.aten.convolution.default, torch.ops.aten.mm.default, torch.ops.aten.bmm.default}


class ProductsInFloat32(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not annotate it
    """While it is active, convolutions and products of matrices in float16 are computed in float32 and rounded."""

    # Any: operations of torch take and give values of every type.
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute one operation."""
        if func in _PRODUCTS and args[0].dtype == torch.float16:
            wide = [one.float() if isinstance(one, torch.Tensor) else one for one in args]
            return func(*wide, **(kwargs or {})).half()
        return func(*args, **(kwargs or {}))
