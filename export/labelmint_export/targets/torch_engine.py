"""Writing what torch makes of a module, and running a module, loaded or in memory, with arrays in and out."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.bundle.quantiles import RunModel
from labelmint_export.bundle.runtime import Arrays
from labelmint_export.errors import CannotRunError
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Device


def save_archive(save: Callable[[io.BytesIO], object], path: Path) -> None:
    """Let torch write an archive to memory, and write that to a file: torch ends the process where a disk is full."""
    buffer = io.BytesIO()
    save(buffer)
    path.write_bytes(buffer.getbuffer())


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
