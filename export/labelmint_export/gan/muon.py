"""Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"), for matrices and convolutions.

Torch has one too, which takes matrices alone, one after the other and always in bfloat16: on a processor without
instructions for it that takes most of a training's time, and on a GPU most of it is spent on launching small products.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from labelmint_export.precision import fast_dtype

MOMENTUM = 0.95
NUM_ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, of x x' x and of x x' x x' x, for singular values in [0, 1]: they end between about 0.7 and 1.2."""


class Muon(torch.optim.Optimizer):
    """Steps of Nesterov's momentum whose singular values are all made about 1.

    Parameters are stacked with zeros around the smaller ones, which change nothing about them, so that all take one
    product where they are as large as each other.

    Args:
        parameters: Each [outputs, ...], of two dimensions or more, taken as a matrix of `outputs` rows; on one device.
        lr: Root mean square by which a step moves the weights.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter, direction in zip(moved, orthogonalize(self._directions(moved)), strict=True):
                parameter.sub_(direction.view_as(parameter) * (group["lr"] * math.sqrt(max(direction.shape))))

    def _directions(self, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
        """Give the matrix along which each would move."""
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state: dict[str, Any] = self.state[parameter]
            momentum = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
            momentum.lerp_(parameter.grad, 1.0 - MOMENTUM)
            directions.append(parameter.grad.lerp(momentum, MOMENTUM).flatten(1))
        return directions


def orthogonalize(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """Make the singular values of matrices about 1, by an iteration of Newton and Schulz in their device's fast type.

    Args:
        matrices: float32, each [rows, columns].

    Returns:
        float32, of the same shapes.
    """
    if not matrices:
        return []
    wide = [matrix if len(matrix) <= matrix.shape[1] else matrix.T for matrix in matrices]
    stack = matrices[0].new_zeros([len(wide), max(len(one) for one in wide), max(one.shape[1] for one in wide)])
    parts = [whole[: len(one), : one.shape[1]] for whole, one in zip(stack, wide, strict=True)]
    torch._foreach_copy_(parts, wide)
    x = stack / stack.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-7)
    x = x.to(fast_dtype(x.device))
    once, thrice, five_times = COEFFICIENTS
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=thrice, alpha=five_times), x, beta=once)
    torch._foreach_copy_(parts, [whole[: len(one), : one.shape[1]] for whole, one in zip(x, wide, strict=True)])
    return [part if part.shape == one.shape else part.T for part, one in zip(parts, matrices, strict=True)]
