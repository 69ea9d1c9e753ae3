"""The descent of a small module that is fitted in one go: warm-up, cosine, averaged weights, an error if not."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from tqdm import tqdm

from labelmint_export.errors import TrainingError

WARMUP_STEPS = 200
AVERAGE_DECAY = 0.999


def descend(
    module: nn.Module,
    loss_of: Callable[[], torch.Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    steps: int,
    name: str,
    *,
    largest_gradient: float = math.inf,
) -> float:
    """Minimise along a cosine schedule; the module ends with its averaged weights.

    Args:
        module: Changed in place.
        loss_of: Draws a batch and gives its loss, float [].
        optimizers: Of all its parameters together, each at its highest rate.
        steps: At least 1.
        name: Of what learns, in the progress bar and in errors.
        largest_gradient: Longer ones are cut to this length.

    Returns:
        Mean loss of the last tenth.

    Raises:
        TrainingError: It is twice that of an earlier tenth: the descent has diverged.
    """
    groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    average = [parameter.detach().clone() for parameter in module.parameters()]
    tenth = max(1, steps // 10)
    losses: list[float] = []
    recent = torch.zeros([], device=average[0].device)
    bar = tqdm(range(steps), desc=name, unit="step", mininterval=2.0)
    for step in bar:
        share = min(1.0, (step + 1) / WARMUP_STEPS) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group, rate in groups:
            group["lr"] = rate * share
        module.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
        nn.utils.clip_grad_norm_(module.parameters(), largest_gradient, foreach=True)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(AVERAGE_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(average, [parameter.detach() for parameter in module.parameters()], 1.0 - decay)
        recent += loss.detach() / tenth
        if (steps - 1 - step) % tenth == 0:
            if step + 1 >= tenth:
                losses.append(float(recent))
                bar.set_postfix(loss=f"{losses[-1]:.4f}")
            recent.zero_()
    with torch.no_grad():
        for parameter, averaged in zip(module.parameters(), average, strict=True):
            parameter.copy_(averaged)
    if not losses[-1] <= 2.0 * min(losses):
        raise TrainingError(
            f"the loss of the {name} ended at {losses[-1]:.3g} and had been {min(losses):.3g}, expected a descent; "
            "start again from these networks with other prior_steps",
            field="prior_steps",
        )
    return losses[-1]
