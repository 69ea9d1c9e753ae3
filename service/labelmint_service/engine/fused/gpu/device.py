"""What the kernels run on: memory, streams, events, launches. `driver` is a GPU; the tests bring a processor.

Addresses, streams, events and functions are numbers; only the device that gave them knows what they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from labelmint_service.engine.fused.gpu.binaries import KernelBinary
from labelmint_service.engine.fused.gpu.forms import Parameter
from labelmint_service.engine.protocol import JsonValue

Bytes: TypeAlias = npt.NDArray[np.uint8]
LaunchValues: TypeAlias = tuple[
    tuple[int, ...], tuple[type[Any], ...]
]  # Any: ctypes' simple types share no public base
"""Values of a launch and their types of ctypes, in the order in which the binary takes them."""

_MOST_I32 = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceArray:
    """Contiguous memory on a device.

    Attributes:
        address: Of its first byte.
        shape: Its sizes.
        dtype: Of numpy.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # Any: of every dtype

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlace:
    """How onnxruntime works on a device.

    Attributes:
        provider: Name of the provider in `sessions.PROVIDERS`, and of the device in bindings.
        private_options: Options of the provider that differ from run to run, such as the address of a stream.
        graph_options: Those that let the provider record a graph's launches and replay them; empty if it cannot.
    """

    provider: str
    private_options: Mapping[str, str]
    graph_options: Mapping[str, str]


class Device(Protocol):
    """A device with two streams. Calls come from one thread at a time, but for those about its memory.

    Attributes:
        half: The dtype of the products.
        compute: Stream of the graphs and kernels.
        copies: Stream of the results' copies.
    """

    half: np.dtype[Any]  # Any: float16 on GPUs
    compute: int
    copies: int

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, (9, 0) for sm_90."""
        ...

    @property
    def place(self) -> SessionPlace:
        """How onnxruntime is to work on it, on the stream `compute`."""
        ...

    def describe(self) -> Mapping[str, JsonValue]:
        """Everything about it that output bits depend on."""
        ...

    def make_current(self) -> None:
        """Use it in the calling thread; once before other calls in that thread."""
        ...

    def allocate(self, num_bytes: int) -> int:
        """Memory, aligned to 256 bytes, with anything in it.

        Raises:
            EngineStartError: There is not enough.
        """
        ...

    def allocate_pinned(self, num_bytes: int) -> Bytes:
        """Memory of the host from and to which copies run beside the host's own work.

        Raises:
            EngineStartError: There is not enough.
        """
        ...

    def allocated_bytes(self) -> int:
        """How much memory the device has handed out or lost to others, libraries included.

        Raises:
            EngineRunError: It does not say.
        """
        ...

    def total_bytes(self) -> int:
        """How much memory it has.

        Raises:
            EngineRunError: It does not say.
        """
        ...

    def load(self, binary: KernelBinary) -> int:
        """Load a kernel.

        Raises:
            EngineStartError: The device does not take it.
        """
        ...

    def launch(self, function: int, grid: tuple[int, int, int], values: LaunchValues) -> None:
        """Run a kernel on the stream `compute`.

        Raises:
            EngineRunError: It could not be started, or something before it failed.
        """
        ...

    def zero(self, address: int, num_bytes: int) -> None:
        """Set memory to zero, on the stream `compute`."""
        ...

    def copy_in(self, source: Bytes, address: int) -> None:
        """Copy memory of the host to the device, on the stream `compute`; it stays as it is until that is done."""
        ...

    def copy_within(self, source: int, target: int, num_bytes: int) -> None:
        """Copy memory of the device, on the stream `compute`."""
        ...

    def copy_out(self, address: int, target: Bytes) -> None:
        """Copy memory of the device to the host, on the stream `copies`; beside other work if `target` is pinned."""
        ...

    def make_event(self) -> int:
        """Something that can be recorded on a stream and waited for."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Let an event happen when all that the stream has got so far is done."""
        ...

    def let_wait(self, stream: int, event: int) -> None:
        """Let a stream go on only after an event."""
        ...

    def wait(self, event: int) -> None:
        """Wait for an event.

        Raises:
            EngineRunError: Something before it failed.
        """
        ...

    def synchronize(self) -> None:
        """Wait for both streams.

        Raises:
            EngineRunError: Something on them failed.
        """
        ...

    def elapsed_ns(self, first: int, second: int) -> int:
        """Time between two events that have happened."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def place_array(device: Device, shape: Sequence[int], dtype: npt.DTypeLike) -> DeviceArray:
    """Allocate an array on a device, with anything in it.

    Raises:
        EngineStartError: There is not enough memory.
    """
    array = DeviceArray(address=0, shape=tuple(shape), dtype=np.dtype(dtype))
    address = device.allocate(max(array.num_bytes, 1))
    return DeviceArray(address=address, shape=array.shape, dtype=array.dtype)


def upload(device: Device, content: npt.NDArray[Any]) -> DeviceArray:  # Any: of every dtype
    """Place an array on a device and wait until it is there.

    Raises:
        EngineStartError: There is not enough memory.
    """
    array = place_array(device, content.shape, content.dtype)
    if array.num_bytes:
        device.copy_in(np.ascontiguousarray(content).reshape(-1).view(np.uint8), array.address)
        device.synchronize()
    return array


def download(device: Device, array: DeviceArray) -> npt.NDArray[Any]:  # Any: of the array's dtype
    """Copy an array to the host once all that was asked of the device is done.

    Raises:
        EngineRunError: The copy or something before it failed.
    """
    content = np.empty(array.shape, dtype=array.dtype)
    device.synchronize()
    device.copy_out(array.address, content.reshape(-1).view(np.uint8))
    device.synchronize()
    return content


def marshal(binary: KernelBinary, parameters: Sequence[Parameter], values: Sequence[int]) -> LaunchValues:
    """Put the arguments of a launch into the form in which a binary takes them.

    Args:
        binary: What will be launched.
        parameters: Of its kernel.
        values: Addresses and numbers, one a parameter.

    Raises:
        ValueError: A value is not what the binary was compiled for.
    """
    added = binary.parameters[len(parameters) :]
    if len(values) != len(parameters) or any(kind != "null" for kind in added):
        raise ValueError(f"{binary.file} takes {list(binary.parameters)}, but got {len(values)} arguments")
    types: list[type[Any]] = []
    for value, parameter, kind in zip(values, parameters, binary.parameters, strict=False):
        if kind.startswith("*") is not parameter.is_pointer:
            raise ValueError(f"{binary.file} takes {parameter.name} as {kind}, expected {parameter.kind}")
        if value % parameter.divisor or (not parameter.is_pointer and not 0 <= value <= _MOST_I32):
            raise ValueError(
                f"{parameter.name} of {binary.file} is {value}, expected a multiple of {parameter.divisor} from 0 to "
                "2^31 - 1"
            )
        types.append(ctypes.c_void_p if parameter.is_pointer else ctypes.c_int)
    return (*values, *(0 for _ in added)), (*types, *(ctypes.c_void_p for _ in added))
