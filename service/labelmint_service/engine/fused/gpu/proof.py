"""A device has to label as a processor does before it labels for anybody."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from labelmint.graphs import stack_name
from labelmint_service.engine.fused.bundles import LabelFrame
from labelmint_service.engine.fused.gpu.device import Device, DeviceArray, download
from labelmint_service.engine.fused.kernel import LEAST_AGREEMENT, InterpreterKernel
from labelmint_service.engine.fused.native import EXACT, find_variant
from labelmint_service.engine.fused.weights import InterpreterWeights
from labelmint_service.errors import EngineStartError


def check_labels(
    weights: InterpreterWeights,
    frame: LabelFrame,
    taps: Mapping[str, DeviceArray],
    label: npt.NDArray[np.uint8],
    device: Device,
) -> None:
    """Label the picture whose taps lie on a device once more, on the processor.

    Args:
        weights: Of the interpreter.
        frame: What of the labels is delivered.
        taps: `labelmint.graphs.stack_name` -> where the taps are, [B, C_r, r, r].
        label: uint8 [H, W]: what the device made of the first row.
        device: Holds the taps.

    Raises:
        EngineStartError: The processor labels otherwise, or has no kernel.
    """
    first = {r: _first_row(taps[stack_name(r)]) for r in weights.levels}
    stacks = {r: download(device, array).astype(np.float32) for r, array in first.items()}
    kernel = InterpreterKernel(weights, find_variant(EXACT), num_threads=1)
    try:
        expected = frame.cut(kernel.run(stacks, frame.rows).label)[0]
    finally:
        kernel.close()
    agreement = float((expected == label).mean())
    if agreement < LEAST_AGREEMENT:
        raise EngineStartError(
            f"the GPU kernels give {agreement:.2%} of the labels that the processor gives in float32, expected "
            f"{LEAST_AGREEMENT:.1%} or more; choose engine 'onnxruntime'",
            field="engine",
        )


def _first_row(array: DeviceArray) -> DeviceArray:
    return DeviceArray(address=array.address, shape=(1, *array.shape[1:]), dtype=array.dtype)
