"""Muon (Jordan et al. 2024), by the size of its steps, for matrices and for the kernels of convolutions."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

_UNIT_STEP = 0.2
"""Root mean square by which torch's Muon moves weights at a learning rate of 1."""


def make_muon(matrices: Iterable[nn.Parameter], step: float) -> torch.optim.Muon:
    """Make torch's Muon.

    Args:
        matrices: Each [outputs, inputs].
        step: Root mean square by which a step moves their weights.
    """
    return torch.optim.Muon(matrices, lr=step / _UNIT_STEP, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")


class KernelDescent:
    """Muon for kernels: each is a matrix [outputs, inputs * height * width] to it.

    Args:
        kernels: Each [outputs, inputs, height, width]; changed in place.
    """

    def __init__(self, kernels: Sequence[nn.Parameter]) -> None:
        self._kernels = kernels
        self._matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
        self.optimizer = make_muon(self._matrices, step=0.0)
        """What has to be saved: its momentum."""

    def zero_grad(self) -> None:
        """Forget the gradients of the kernels."""
        for kernel in self._kernels:
            kernel.grad = None

    @torch.no_grad()
    def step(self, step: float) -> None:
        """Move every kernel along its gradient, by a root mean square of `step`."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            assert kernel.grad is not None
            matrix.copy_(kernel.flatten(1))
            matrix.grad = kernel.grad.flatten(1)
        for group in self.optimizer.param_groups:
            group["lr"] = step / _UNIT_STEP
        self.optimizer.step()  # type: ignore[no-untyped-call]  # torch's method is untyped
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            kernel.copy_(matrix.view_as(kernel))
