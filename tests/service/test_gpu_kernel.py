"""The GPU kernels in Triton's interpreter against the plain algorithm in float64."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.labels import VOTE_RULES
from labelmint_service.engine.fused.gpu_plan import make_plan
from labelmint_service.engine.fused.peaks import find_peaks
from labelmint_service.engine.fused.weights import InterpreterWeights
from tests.export.plain_interpreter import plain_labels
from tests.export.test_fused_interpreter import LAYOUTS
from tests.export.tiny_parts import make_interpreter, make_taps
from tests.service.test_fused_kernel import stacks_of, weights_of

pytest.importorskip("triton", reason="triton is installed on Linux only")

SOURCE = Path(__file__).parents[2] / "service/kernel/interpreter_gpu.py"


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The kernels, interpreted, as tests/conftest.py asks of Triton."""
    spec = importlib.util.spec_from_file_location("interpreted_kernels", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(
    kernels: ModuleType,
    weights: InterpreterWeights,
    stacks: Mapping[int, npt.NDArray[np.float32]],
    half: torch.dtype,
) -> dict[str, npt.NDArray[Any]]:
    """Do the launches of a plan one after the other."""
    plan = make_plan(weights, len(next(iter(stacks.values()))))
    memory = {f"tap_r{r}": torch.from_numpy(stack).to(half) for r, stack in stacks.items()}
    memory |= {name: torch.from_numpy(table).to(half) for name, table in plan.half_tables.items()}
    memory |= {name: torch.from_numpy(table) for name, table in plan.tables.items()}
    for name, buffer in plan.buffers.items():
        dtype = half if buffer.dtype == "half" else getattr(torch, buffer.dtype)
        memory[name] = torch.full(buffer.shape, 77, dtype=dtype)  # nothing may rely on what was there
    for launch in plan.launches:
        arguments = [memory[one] if isinstance(one, str) else one for one in launch.arguments]
        getattr(kernels, launch.kernel)[launch.grid](*arguments, **launch.constants)
    return {name: memory[name].numpy() for name in ("labels", "divergence", "heat") if name in memory}


def truth_of(interpreter: Interpreter, taps: Mapping[str, torch.Tensor], rule: str) -> Any:  # Any: a named tuple
    return plain_labels(interpreter.double(), taps, rule)


# Triton's interpreter takes seconds a case.
CASES = [(layout, "majority") for layout in LAYOUTS] + [("two taps a level", rule) for rule in VOTE_RULES[1:]]


@pytest.mark.parametrize(("layout", "rule"), CASES)
def test_interpreted_kernels_equal_the_plain_algorithm(kernels: ModuleType, layout: str, rule: str) -> None:
    taps_of, side = LAYOUTS[layout]
    interpreter, taps = make_interpreter(taps_of, side), make_taps(taps_of, 1)
    expected = truth_of(interpreter, taps, rule)
    got = run(kernels, weights_of(interpreter.float(), rule), stacks_of(taps, interpreter), torch.float32)
    assert float((torch.from_numpy(got["labels"]) == expected.label).double().mean()) >= 0.9995
    np.testing.assert_allclose(got["divergence"], expected.uncertainty_map.numpy(), rtol=0, atol=1e-5)
    peaks = find_peaks(got["heat"])
    np.testing.assert_allclose(peaks[..., 2], expected.keypoints[..., 2].numpy(), rtol=0, atol=1e-4)


def test_interpreted_kernels_in_float16_are_near_the_plain_algorithm(kernels: ModuleType) -> None:
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter, taps = make_interpreter(taps_of, side), make_taps(taps_of, 2)
    expected = truth_of(interpreter, taps, "majority")
    got = run(kernels, weights_of(interpreter.float()), stacks_of(taps, interpreter), torch.float16)
    assert float((torch.from_numpy(got["labels"]) == expected.label).double().mean()) >= 0.98
    assert np.abs(got["divergence"] - expected.uncertainty_map.numpy()).mean() < 2e-3


@pytest.mark.parametrize("resolution", [4, 8, 16, 32])
def test_number_that_is_none_shows_in_the_divergence(kernels: ModuleType, resolution: int) -> None:
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter = make_interpreter(taps_of, side)
    stacks = stacks_of(make_taps(taps_of, 2), interpreter)
    stacks[resolution][1, 0, 2, 3] = np.nan
    divergence = run(kernels, weights_of(interpreter), stacks, torch.float32)["divergence"]
    assert np.isfinite(divergence[0]).all()
    assert not np.isfinite(divergence[1]).all()
