"""Running a torch module, loaded or in memory, with arrays in and out."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.bundle.quantiles import RunModel
from labelmint_export.bundle.runtime import Arrays
from labelmint_export.errors import CannotRunError
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Device


def check_traced_device(device: Device) -> None:
    """Refuse another device than that of the trace, which a traced program holds on to.

    Raises:
        CannotRunError: The device is not the CPU.
    """
    if device != "cpu":
        raise CannotRunError("it was traced on the CPU, and a trace holds its device")


def run_with_arrays(
    call: Callable[..., tuple[torch.Tensor, ...] | list[torch.Tensor]], model: TargetModel, device: Device
) -> RunModel:
    """Let a callable on tensors take feeds and give outputs by name."""

    @torch.no_grad()
    def run(feeds: dict[str, npt.NDArray[np.float32]]) -> Arrays:
        tensors = [torch.from_numpy(np.ascontiguousarray(feeds[name])).to(device) for name in model.inputs]
        outputs = call(*tensors)
        return {name: tensor.cpu().numpy() for name, tensor in zip(model.output_names, outputs, strict=True)}

    return run
