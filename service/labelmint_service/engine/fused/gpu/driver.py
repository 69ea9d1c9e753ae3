"""A GPU, by the CUDA driver's interface. Neither CUDA's toolkit nor torch is needed, only NVIDIA's driver.

Memory, streams and modules live in the device's primary context, which onnxruntime uses too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from labelmint_service.engine.fused.gpu.binaries import KernelBinary
from labelmint_service.engine.fused.gpu.device import Bytes, LaunchValues, SessionPlace
from labelmint_service.engine.graphics import describe_graphics
from labelmint_service.engine.protocol import JsonValue
from labelmint_service.errors import EngineRunError, EngineStartError

_WARP_SIZE = 32
_NAME_BYTES = 256
_PLAIN_SHARED_BYTES = 48 * 1024
"""More shared memory than this has to be asked for."""


class CudaDevice:
    """One GPU.

    Args:
        ordinal: Its number in the driver's count.

    Raises:
        EngineStartError: There is no binding, no driver or no such GPU.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self.half = np.dtype(np.float16)
        self._ordinal = ordinal
        self._cuda = _load_binding()
        self._memory: list[int] = []
        self._pinned: list[int] = []
        self._modules: list[Any] = []  # Any: handles of the binding, which has no types
        self._functions: dict[int, tuple[Any, KernelBinary]] = {}
        self._events: list[int] = []
        try:
            self._start("cuInit", 0)
        except (RuntimeError, OSError) as error:  # the binding does not find the driver's library
            raise EngineStartError(
                f"provider is 'cuda', but NVIDIA's driver is not to be found ({error}); install it, or choose provider "
                "'cpu'",
                field="provider",
            ) from error
        count = self._start("cuDeviceGetCount")
        if ordinal >= count:
            raise EngineStartError(
                f"provider is 'cuda', but the driver lists {count} GPUs, expected at least {ordinal + 1}; make one "
                "visible to this process, or choose provider 'cpu'",
                field="provider",
            )
        self._device = self._start("cuDeviceGet", ordinal)
        self._context = self._start("cuDevicePrimaryCtxRetain", self._device)
        self.make_current()
        not_blocking = self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        self.compute, self.copies = (int(self._start("cuStreamCreate", not_blocking)) for _ in range(2))

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, (9, 0) for sm_90."""
        return self._attribute("COMPUTE_CAPABILITY_MAJOR"), self._attribute("COMPUTE_CAPABILITY_MINOR")

    @property
    def place(self) -> SessionPlace:
        """Onnxruntime's CUDA provider on this GPU and stream."""
        return SessionPlace(
            provider="cuda",
            private_options={"device_id": str(self._ordinal), "user_compute_stream": str(self.compute)},
            graph_options={"enable_cuda_graph": "1"},
        )

    def describe(self) -> Mapping[str, JsonValue]:
        """Model and capability of the GPU, and the driver's versions."""
        name = self._start("cuDeviceGetName", _NAME_BYTES, self._device)
        return {
            "name": name.split(b"\0", 1)[0].decode(errors="replace"),
            "capability": ".".join(map(str, self.capability)),
            "num_multiprocessors": self._attribute("MULTIPROCESSOR_COUNT"),
            "cuda_driver": self._start("cuDriverGetVersion"),
            "graphics": describe_graphics(),
        }

    def make_current(self) -> None:
        """Use the context in the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, num_bytes: int) -> int:
        """Memory on the GPU; see Device.allocate."""
        address = int(self._start("cuMemAlloc", num_bytes, hint=f" for {num_bytes:,} bytes; use a smaller batch"))
        self._memory.append(address)
        return address

    def allocate_pinned(self, num_bytes: int) -> Bytes:
        """Page-locked memory of the host; see Device.allocate_pinned."""
        address = int(self._start("cuMemHostAlloc", num_bytes, 0, hint=f" for {num_bytes:,} bytes of the host"))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(address))

    def allocated_bytes(self) -> int:
        """Memory of the GPU that is not free."""
        self.make_current()
        free, total = self._call("cuMemGetInfo")
        return int(total) - int(free)

    def total_bytes(self) -> int:
        """All memory of the GPU."""
        self.make_current()
        return int(self._call("cuMemGetInfo")[1])

    def load(self, binary: KernelBinary) -> int:
        """Load a binary, and ask for its shared memory; see Device.load."""
        most = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        if binary.shared_bytes > most:
            raise EngineStartError(
                f"kernel {binary.form!r} wants {binary.shared_bytes:,} bytes of shared memory, but the GPU has {most:,}"
                "; choose engine 'onnxruntime'",
                field="engine",
            )
        module = self._start("cuModuleLoadData", binary.content + b"\0", hint=f" for {binary.file}")
        self._modules.append(module)
        function = self._start("cuModuleGetFunction", module, binary.entry.encode(), hint=f" for {binary.file}")
        if binary.shared_bytes > _PLAIN_SHARED_BYTES:
            attribute = self._cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._start("cuFuncSetAttribute", function, attribute, binary.shared_bytes)
        self._functions[int(function)] = (function, binary)
        return int(function)

    def launch(self, function: int, grid: tuple[int, int, int], values: LaunchValues) -> None:
        """Run a kernel on the stream `compute`; see Device.launch."""
        handle, binary = self._functions[function]
        block = (binary.num_warps * _WARP_SIZE, 1, 1)
        stream = self._stream(self.compute)
        self._call("cuLaunchKernel", handle, *grid, *block, binary.shared_bytes, stream, values, 0, hint=binary.file)

    def zero(self, address: int, num_bytes: int) -> None:
        """Set memory to zero."""
        self._call("cuMemsetD8Async", address, 0, num_bytes, self._stream(self.compute))

    def copy_in(self, source: Bytes, address: int) -> None:
        """Copy memory of the host to the GPU."""
        self._call("cuMemcpyHtoDAsync", address, source.ctypes.data, source.nbytes, self._stream(self.compute))

    def copy_within(self, source: int, target: int, num_bytes: int) -> None:
        """Copy memory of the GPU."""
        self._call("cuMemcpyDtoDAsync", target, source, num_bytes, self._stream(self.compute))

    def copy_out(self, address: int, target: Bytes) -> None:
        """Copy memory of the GPU to the host."""
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, address, target.nbytes, self._stream(self.copies))

    def make_event(self) -> int:
        """An event that also takes the time."""
        event = int(self._start("cuEventCreate", self._cuda.CUevent_flags.CU_EVENT_DEFAULT.value))
        self._events.append(event)
        return event

    def record(self, event: int, stream: int) -> None:
        """Record an event."""
        self._call("cuEventRecord", self._cuda.CUevent(event), self._stream(stream))

    def let_wait(self, stream: int, event: int) -> None:
        """Let a stream wait for an event."""
        self._call("cuStreamWaitEvent", self._stream(stream), self._cuda.CUevent(event), 0)

    def wait(self, event: int) -> None:
        """Wait for an event."""
        self._call("cuEventSynchronize", self._cuda.CUevent(event))

    def synchronize(self) -> None:
        """Wait for both streams."""
        for stream in (self.compute, self.copies):
            self._call("cuStreamSynchronize", self._stream(stream))

    def elapsed_ns(self, first: int, second: int) -> int:
        """Time between two events."""
        milliseconds = self._call("cuEventElapsedTime", self._cuda.CUevent(first), self._cuda.CUevent(second))
        return int(milliseconds * 1e6)

    def close(self) -> None:
        """Wait for what runs, then free everything; what a failed run left cannot be freed, and is not."""
        cuda = self._cuda
        self.make_current()
        cuda.cuCtxSynchronize()
        for event in self._events:
            cuda.cuEventDestroy(cuda.CUevent(event))
        for module in self._modules:
            cuda.cuModuleUnload(module)
        for address in self._memory:
            cuda.cuMemFree(address)
        for address in self._pinned:
            cuda.cuMemFreeHost(address)
        for stream in (self.compute, self.copies):
            cuda.cuStreamDestroy(self._stream(stream))
        cuda.cuDevicePrimaryCtxRelease(self._device)

    def _stream(self, stream: int) -> Any:
        return self._cuda.CUstream(stream)

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._cuda.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._start("cuDeviceGetAttribute", attribute, self._device))

    def _start(self, name: str, *arguments: object, hint: str = "") -> Any:
        """A call without which there is no engine."""
        status, result = self._raw(name, *arguments)
        if status:
            raise EngineStartError(f"the CUDA driver answers {name} with {status}{hint}", field="provider")
        return result

    def _call(self, name: str, *arguments: object, hint: str = "") -> Any:
        """A call of a run."""
        status, result = self._raw(name, *arguments)
        if status:
            raise EngineRunError(f"the CUDA driver answers {name} with {status}{hint and f' for {hint}'}")
        return result

    def _raw(self, name: str, *arguments: object) -> tuple[str, Any]:
        """Name of the error, empty if there is none, and the result: nothing, one thing or a tuple."""
        status, *results = getattr(self._cuda, name)(*arguments)
        if status != self._cuda.CUresult.CUDA_SUCCESS:
            return getattr(status, "name", str(status)), None
        return "", results[0] if len(results) == 1 else tuple(results)


def _load_binding() -> Any:  # Any: a module without types
    try:
        from cuda.bindings import driver  # noqa: PLC0415 - an optional library
    except ImportError as error:
        raise EngineStartError(
            f"provider is 'cuda', but the binding of the CUDA driver cannot be imported ({error}); run: pip install "
            "'labelmint[service,gpu]'",
            field="provider",
        ) from error
    return driver
