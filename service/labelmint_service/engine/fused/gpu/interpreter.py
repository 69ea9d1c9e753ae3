"""Runs a plan: the interpreter of one bundle on the taps of one batch, on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint_service.engine.fused.gpu.binaries import KernelArchive
from labelmint_service.engine.fused.gpu.device import Device, DeviceArray, LaunchValues, marshal, place_array, upload
from labelmint_service.engine.fused.gpu.forms import parameters_of
from labelmint_service.engine.fused.gpu.plan import RESULTS, Buffer, GpuPlan, Launch
from labelmint_service.engine.fused.weights import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundLaunch:
    """A launch with addresses in the place of names.

    Attributes:
        function: Of the device.
        grid: Programs along three axes.
        values: What it is given.
    """

    function: int
    grid: tuple[int, int, int]
    values: LaunchValues


class GpuInterpreter:
    """The interpreter of one bundle on a device, for batches of one size.

    Everything is allocated here. Results have as many places as slots, so that one batch can leave the device while
    the next one is computed.

    Args:
        device: What it runs on.
        plan: Of the bundle and batch.
        archive: Binaries of the kernels.
        num_slots: Places for results.

    Raises:
        EngineStartError: A binary is missing, or there is not enough memory.
        ValueError: Weights are too large for the dtype of the products, or a launch does not fit its binary.

    Attributes:
        inputs: Name -> where the taps are expected.
    """

    def __init__(self, device: Device, plan: GpuPlan, archive: KernelArchive, num_slots: int) -> None:
        self._device = device
        arrays = {name: upload(device, _rounded(name, table, device.half)) for name, table in plan.half_tables.items()}
        arrays |= {name: upload(device, np.asarray(table, np.float32)) for name, table in plan.tables.items()}
        self.inputs: Mapping[str, DeviceArray] = {name: self._place(buffer) for name, buffer in plan.inputs.items()}
        arrays |= self.inputs
        arrays |= {name: self._place(buffer) for name, buffer in plan.buffers.items() if name not in RESULTS}
        results = {name: buffer for name, buffer in plan.buffers.items() if name in RESULTS}
        self._slots = [{name: self._place(buffer) for name, buffer in results.items()} for _ in range(num_slots)]
        binaries = {launch.form.name: archive.find(launch.form.name, device.capability) for launch in plan.launches}
        functions = {name: device.load(binary) for name, binary in binaries.items()}

        def bind(launch: Launch, known: Mapping[str, DeviceArray]) -> BoundLaunch:
            values = [known[one].address if isinstance(one, str) else one for one in launch.arguments]
            name = launch.form.name
            marshalled = marshal(binaries[name], parameters_of(launch.form.kernel), values)
            return BoundLaunch(function=functions[name], grid=launch.grid, values=marshalled)

        self._launches = [[bind(launch, arrays | slot) for launch in plan.launches] for slot in self._slots]
        self.binaries: Mapping[str, str] = {name: binary.file for name, binary in sorted(binaries.items())}

    def results(self, slot: int) -> Mapping[str, DeviceArray]:
        """Where the results of a slot are: the buffers of `plan.RESULTS` that the plan has."""
        return self._slots[slot]

    def run(self, slot: int) -> None:
        """Ask the device to label what lies at `inputs`; its stream `compute` does so in order.

        Raises:
            EngineRunError: A kernel could not be started.
        """
        counts = self._slots[slot]["counts"]
        self._device.zero(counts.address, counts.num_bytes)
        for launch in self._launches[slot]:
            self._device.launch(launch.function, launch.grid, launch.values)

    def _place(self, buffer: Buffer) -> DeviceArray:
        dtype = self._device.half if buffer.dtype == "half" else np.dtype(buffer.dtype)
        return place_array(self._device, buffer.shape, dtype)


def _rounded(name: str, table: Floats, dtype: np.dtype[Any]) -> npt.NDArray[Any]:  # Any: the dtype of the products
    with np.errstate(over="ignore"):
        rounded = table.astype(dtype)
    if not np.isfinite(rounded).all():
        raise ValueError(f"table {name} holds {float(np.abs(table).max()):.4g}, more than {dtype} can hold")
    return rounded
