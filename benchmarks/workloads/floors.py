"""What the arithmetic would take at the rates that this machine reaches: the floor of a workload."""

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.workloads.devices import finish
from benchmarks.workloads.shapes import Workload
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import InterpreterConfig

_SIDE = 2048
_SMALL_SIDE = 512
_GPU_SIDE = 8192
_COPY_BYTES = 2**28
_REPEATS = 5


def count_generator(generator: Backbone) -> int:
    """Multiplications and additions of one picture's mapping and synthesis."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        generator.synthesis(generator.mapping(torch.zeros(1, generator.config.z_dim)), "const")
    return int(counter.get_total_flops())


def count_interpreter(config: InterpreterConfig, workload: Workload) -> int:
    """Multiplications and additions of one picture's labels in the commuted form, without resizing, vote and JS.

    Every level below the label resolution is projected where it is, in the rows that the delivered ones are raised
    from; those from there on at every pixel.
    """
    h1, h2 = config.hidden_widths
    side = config.label_resolution
    pixels = side * side * workload.num_rows // workload.resolution
    units = config.num_members * h1
    places = {r: r * _rows_read(workload, r) if r < side else pixels for r in {tap.resolution for tap in config.taps}}
    projections = sum(tap.channels * places[tap.resolution] for tap in config.taps)
    rest = config.num_members * (h1 * h2 + h2 * config.num_classes) * pixels
    return 2 * (units * projections + rest)


def _rows_read(workload: Workload, resolution: int) -> int:
    """Rows of a level below the label resolution that bilinear resizing reads for the delivered rows."""
    side = workload.label_resolution
    scale = side / workload.resolution
    first, last = int(workload.first_row * scale), int((workload.first_row + workload.num_rows) * scale) - 1
    above, below = (math.floor((row + 0.5) * resolution / side - 0.5) for row in (first, last))
    return min(below + 1, resolution - 1) - max(above, 0) + 1


def measure_rates(device: torch.device) -> dict[str, float]:
    """Operations a second of large products in each dtype, and bytes a second of a copy, read and written.

    The dtypes are float32 and bfloat16, on a GPU float16 too. One in which a small product is far slower than in
    float32 is emulated here and left out: a large one would take minutes.
    """
    side = _SIDE if device.type == "cpu" else _GPU_SIDE
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if device.type != "cpu":
        dtypes["float16"] = torch.float16
    rates = {}
    least = _gemm_rate(_SMALL_SIDE, torch.float32, device)
    for name, dtype in dtypes.items():
        if dtype is torch.float32 or _gemm_rate(_SMALL_SIDE, dtype, device) > least / 2:
            rates[f"gemm_{name}"] = _gemm_rate(side, dtype, device)
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates["copy_bytes"] = 2 * _COPY_BYTES / _best(lambda: target.copy_(source), device)
    return rates


def _gemm_rate(side: int, dtype: torch.dtype, device: torch.device) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _best(partial(torch.mm, a, b), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    work()
    finish(device)
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        finish(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
