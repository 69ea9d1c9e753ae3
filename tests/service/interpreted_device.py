"""A device on the processor: memory is numpy's, and launches run the kernels in Triton's interpreter.

The stream of computations works at once. That of copies works as late as it may: only when somebody waits for it. So a
result that is overwritten before it was waited for comes out wrong, and a copy that does not wait for what it copies
fails.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from labelmint_service.engine.fused.gpu.binaries import KernelBinary
from labelmint_service.engine.fused.gpu.device import Bytes, LaunchValues, SessionPlace
from labelmint_service.engine.fused.gpu.forms import Form, all_forms, parameters_of
from labelmint_service.engine.protocol import JsonValue

SOURCE = Path(__file__).parents[2] / "service/kernel/interpreter_gpu.py"
_DTYPES: dict[str, np.dtype[Any]] = {
    "*fp16": np.dtype(np.float16),
    "*fp32": np.dtype(np.float32),
    "*u8": np.dtype(np.uint8),
    "*i32": np.dtype(np.int32),
}


def load_kernels() -> ModuleType:
    """The kernels, interpreted, as tests/conftest.py asks of Triton."""
    name = "interpreted_kernels"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SOURCE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclass(slots=True)
class _Event:
    stream: int = 0
    at: int = 0
    """Computations before it."""
    ns: int = 0


class InterpretedDevice:
    """See above.

    Args:
        half: The dtype of the products: float16 as on a GPU, or float32 to compare closely.
        capability: Of the GPU whose binaries are marshalled for.
    """

    compute, copies = 1, 2

    def __init__(self, half: npt.DTypeLike = np.float32, capability: tuple[int, int] = (9, 0)) -> None:
        self.half = np.dtype(half)
        self.capability = capability
        self.place = SessionPlace(provider="cpu", private_options={}, graph_options={})
        self._memory: dict[int, Bytes] = {}
        self._loaded: dict[int, tuple[Form, KernelBinary]] = {}
        self._events: dict[int, _Event] = {}
        self._numbers = itertools.count(1)
        self._done = 0  # computations
        self._known = 0  # of these, how many the stream of copies has waited for
        self._written: dict[int, int] = {}
        self._late: list[Callable[[], None]] = []
        self.is_closed = False

    def describe(self) -> Mapping[str, JsonValue]:
        return {"name": "interpreted"}

    def make_current(self) -> None:
        assert not self.is_closed

    def allocate(self, num_bytes: int) -> int:
        whole = np.full(num_bytes + 256, 77, dtype=np.uint8)  # nothing may rely on what was there
        content = whole[-whole.ctypes.data % 256 :][:num_bytes]
        self._memory[content.ctypes.data] = content
        return int(content.ctypes.data)

    def allocate_pinned(self, num_bytes: int) -> Bytes:
        return np.full(num_bytes, 78, dtype=np.uint8)

    def allocated_bytes(self) -> int:
        return sum(content.nbytes for content in self._memory.values())

    def total_bytes(self) -> int:
        return 2**34

    def load(self, binary: KernelBinary) -> int:
        form = next(form for form in all_forms() if form.name == binary.form)
        number = next(self._numbers)
        self._loaded[number] = (form, binary)
        return number

    def launch(self, function: int, grid: tuple[int, int, int], values: LaunchValues) -> None:
        form, binary = self._loaded[function]
        numbers, types = values
        assert len(numbers) == len(types) == len(binary.parameters)
        arguments: list[Any] = []  # Any: tensors and numbers
        for parameter, number in zip(parameters_of(form.kernel), numbers, strict=False):
            if parameter.is_pointer:
                arguments.append(torch.from_numpy(self._memory[number].view(self._dtype(parameter.kind, form))))
                self._written[number] = self._done + 1
            else:
                arguments.append(number)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")  # numpy says so of what the kernels count
            getattr(load_kernels(), form.kernel)[grid](*arguments, **form.constants)
        self._done += 1

    def zero(self, address: int, num_bytes: int) -> None:
        self._memory[address][:num_bytes] = 0
        self._computed(address)

    def copy_in(self, source: Bytes, address: int) -> None:
        self._memory[address][: source.nbytes] = source
        self._computed(address)

    def copy_within(self, source: int, target: int, num_bytes: int) -> None:
        self._memory[target][:num_bytes] = self._memory[source][:num_bytes]
        self._computed(target)

    def copy_out(self, address: int, target: Bytes) -> None:
        assert self._written.get(address, 0) <= self._known, "a copy does not wait for what it copies"

        def copy() -> None:
            target[:] = self._memory[address][: target.nbytes]

        self._late.append(copy)

    def make_event(self) -> int:
        number = next(self._numbers)
        self._events[number] = _Event()
        return number

    def record(self, event: int, stream: int) -> None:
        self._events[event] = _Event(stream, self._done, time.perf_counter_ns())

    def let_wait(self, stream: int, event: int) -> None:
        if stream == self.copies:
            self._known = max(self._known, self._events[event].at)
        else:
            self.wait(event)

    def wait(self, event: int) -> None:
        if self._events[event].stream == self.copies:
            self._catch_up()

    def synchronize(self) -> None:
        self._known = self._done
        self._catch_up()

    def elapsed_ns(self, first: int, second: int) -> int:
        return self._events[second].ns - self._events[first].ns

    def close(self) -> None:
        self.is_closed = True
        self._memory.clear()

    def _computed(self, address: int) -> None:
        self._done += 1
        self._written[address] = self._done

    def _catch_up(self) -> None:
        for copy in self._late:
            copy()
        self._late.clear()

    def _dtype(self, kind: str, form: Form) -> np.dtype[Any]:
        if kind == "*taps":
            return np.dtype(form.tap_dtype)
        return self.half if kind == "*half" else _DTYPES[kind]
