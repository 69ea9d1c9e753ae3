"""What the arithmetic would take at the rates that this machine reaches: the floor of a workload."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.workloads.shapes import Workload
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import InterpreterConfig

_SIDE = 2048
_COPY_BYTES = 2**28
_REPEATS = 5


def count_generator(generator: Backbone) -> int:
    """Multiplications and additions of one picture's mapping and synthesis."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        generator.synthesis(generator.mapping(torch.zeros(1, generator.config.z_dim)), "const")
    return int(counter.get_total_flops())


def count_interpreter(config: InterpreterConfig, workload: Workload) -> int:
    """Multiplications and additions of one picture's labels in the commuted form, without resizing, vote and JS.

    Every level below the label resolution is projected where it is; those from there on at every pixel.
    """
    h1, h2 = config.hidden_widths
    side = config.label_resolution
    pixels = side * side * workload.num_rows // workload.resolution
    units = config.num_members * h1
    projections = sum(tap.channels * (tap.resolution**2 if tap.resolution < side else pixels) for tap in config.taps)
    rest = config.num_members * (h1 * h2 + h2 * config.num_classes) * pixels
    return 2 * (units * projections + rest)


def measure_rates() -> dict[str, float]:
    """Operations a second of large products in float32 and bfloat16, and bytes a second of a copy, read and written."""
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
        rates[f"gemm_{name}"] = 2 * _SIDE**3 / _best(lambda a=a, b=b: torch.mm(a, b))
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    rates["copy_bytes"] = 2 * _COPY_BYTES / _best(lambda: target.copy_(source))
    return rates


def _best(work: object) -> float:
    assert callable(work)
    work()
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
