"""The GPU kernels in Triton's interpreter against the plain algorithm in float64, launched as the engine does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from labelmint.graphs import VOTE_RULES
from labelmint.scores import NUM_BINS, image_score, score_counts
from labelmint_service.engine.fused.bundles import LabelFrame
from labelmint_service.engine.fused.gpu.binaries import read_archive
from labelmint_service.engine.fused.gpu.device import download
from labelmint_service.engine.fused.gpu.interpreter import GpuInterpreter
from labelmint_service.engine.fused.gpu.plan import make_plan
from labelmint_service.engine.fused.kernel import InterpreterKernel
from labelmint_service.engine.fused.native import EXACT, find_variant
from labelmint_service.engine.fused.peaks import refine_peaks
from labelmint_service.engine.fused.weights import InterpreterWeights
from tests.export.plain_interpreter import plain_labels
from tests.export.test_fused_interpreter import LAYOUTS
from tests.export.tiny_parts import make_interpreter, make_taps
from tests.service.test_fused_kernel import frame_of, stacks_of, weights_of

pytest.importorskip("triton", reason="triton is installed on Linux only")

from tests.service.interpreted_device import InterpretedDevice

Stacks = Mapping[int, npt.NDArray[np.float32]]
Results = dict[str, npt.NDArray[Any]]  # Any: of every dtype


def run(
    weights: InterpreterWeights,
    stacks: Stacks,
    *,
    half: npt.DTypeLike = np.float32,
    taps: str = "float32",
    frame: LabelFrame | None = None,
) -> Results:
    """Label taps on a device that is a processor."""
    device = InterpretedDevice(half)
    plan = make_plan(weights, len(next(iter(stacks.values()))), frame or frame_of(weights.size), tap_dtype=taps)
    interpreter = GpuInterpreter(device, plan, read_archive(), num_slots=2)
    for r, stack in stacks.items():
        device.copy_in(stack.astype(taps).reshape(-1).view(np.uint8), interpreter.inputs[f"tap_r{r}"].address)
    interpreter.run(slot=1)
    return {name: download(device, array) for name, array in interpreter.results(1).items()}


def peaks_of(got: Results, size: int) -> npt.NDArray[np.float32]:
    return refine_peaks(got["places"], got["values"][..., :5], size, size)


# Triton's interpreter takes ten seconds a case; those that are marked show once more what the first ones show.
FIRST = ("two taps a level", "labels finer than every tap", "coarse levels only", "one fine level")
CASES = [
    *(pytest.param(layout, "majority", marks=[] if layout in FIRST else pytest.mark.interpreted) for layout in LAYOUTS),
    *(("two taps a level", rule) for rule in VOTE_RULES[1:]),
]


@pytest.mark.parametrize(("layout", "rule"), CASES)
def test_interpreted_kernels_equal_the_plain_algorithm(layout: str, rule: str) -> None:
    taps_of, side = LAYOUTS[layout]
    interpreter, taps = make_interpreter(taps_of, side), make_taps(taps_of, 1)
    expected = plain_labels(interpreter.double(), taps, rule)
    got = run(weights_of(interpreter.float(), rule), stacks_of(taps, interpreter))
    assert float((torch.from_numpy(got["label_frame"]) == expected.label).double().mean()) >= 0.9995
    # The map is delivered in float16: eleven bits of numbers up to the logarithm of the number of classes.
    np.testing.assert_allclose(got["map_frame"], expected.uncertainty_map.numpy(), rtol=2**-11, atol=1e-5)
    peaks = peaks_of(got, side)
    np.testing.assert_allclose(peaks[..., 2], expected.keypoints[..., 2].numpy(), rtol=0, atol=1e-4)
    settled = expected.peak_margin.numpy() > 1e-5
    np.testing.assert_allclose(peaks[..., :2][settled], expected.keypoints[..., :2].numpy()[settled], rtol=0, atol=1e-3)
    assert not got["counts"][:, NUM_BINS].any()
    assert not got["values"][..., 5].any()


def test_interpreted_kernels_give_what_the_kernel_of_the_processor_gives() -> None:
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter = make_interpreter(taps_of, side)
    weights, stacks = weights_of(interpreter), stacks_of(make_taps(taps_of, 2, seed=11), interpreter)
    expected = InterpreterKernel(weights, find_variant(EXACT), 1).run(stacks)
    got = run(weights, stacks)
    assert (got["label_frame"] == expected.label).mean() >= 0.9995
    np.testing.assert_allclose(got["map_frame"], expected.uncertainty, rtol=2**-11, atol=1e-5)
    flat = expected.heatmaps.reshape(*expected.heatmaps.shape[:2], -1)
    np.testing.assert_allclose(got["values"][..., 0], flat.max(axis=2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("taps", [pytest.param("float32", marks=pytest.mark.interpreted), "float16"])
def test_interpreted_kernels_in_float16_are_near_the_plain_algorithm(taps: str) -> None:
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter, given = make_interpreter(taps_of, side), make_taps(taps_of, 1)
    expected = plain_labels(interpreter.double(), given, "majority")
    got = run(weights_of(interpreter.float()), stacks_of(given, interpreter), half=np.float16, taps=taps)
    assert float((torch.from_numpy(got["label_frame"]) == expected.label).double().mean()) >= 0.98
    assert np.abs(got["map_frame"] - expected.uncertainty_map.numpy()).mean() < 2e-3


@pytest.mark.parametrize(
    "frame", [(3, 1, 11, 20), pytest.param((9, 0, 16, 32), marks=pytest.mark.interpreted), (24, 30, 8, 2)]
)
def test_frame_is_cut_out_of_the_whole(frame: tuple[int, int, int, int]) -> None:
    top, left, height, width = frame
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter = make_interpreter(taps_of, side)
    weights, stacks = weights_of(interpreter), stacks_of(make_taps(taps_of, 1), interpreter)
    whole, got = run(weights, stacks), run(weights, stacks, frame=frame_of(side, *frame))
    for name in ("label_frame", "map_frame"):
        cut = whole[name][:, top : top + height, left : left + width]
        assert got[name].tobytes() == cut.tobytes(), name
    for name in ("places", "values"):  # a peak may lie outside the frame
        assert np.array_equal(got[name][..., :6], whole[name][..., :6]), name
    scores = score_counts(got["counts"][:, :NUM_BINS], height * width)
    assert scores.tobytes() == image_score(got["map_frame"]).tobytes()


@pytest.mark.interpreted
def test_row_does_not_depend_on_its_neighbours() -> None:
    """In float16; `tests/export/test_gpu_engine.py` shows it of the whole path."""
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter = make_interpreter(taps_of, side)
    weights, stacks = weights_of(interpreter), stacks_of(make_taps(taps_of, 3), interpreter)
    together = run(weights, stacks, half=np.float16)
    for row in range(3):
        alone = run(weights, {r: stack[row : row + 1] for r, stack in stacks.items()}, half=np.float16)
        for name, array in alone.items():
            kept = array[..., :6] if name == "values" else array
            also = together[name][row : row + 1]
            assert kept.tobytes() == np.ascontiguousarray(also[..., :6] if name == "values" else also).tobytes(), name


@pytest.mark.parametrize(
    "resolution", [*(pytest.param(resolution, marks=pytest.mark.interpreted) for resolution in (4, 8, 16)), 32]
)
def test_number_that_is_none_is_counted(resolution: int) -> None:
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter = make_interpreter(taps_of, side)
    stacks = stacks_of(make_taps(taps_of, 2), interpreter)
    stacks[resolution][1, 0, 2, 3] = np.nan
    got = run(weights_of(interpreter), stacks)
    assert (got["counts"][:, NUM_BINS] > 0).tolist() == [False, True]
    assert (got["values"][..., 5] > 0).any(axis=1).tolist() == [False, True]


def test_infinite_heatmap_is_counted_though_labels_are_finite() -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    weights = weights_of(make_interpreter(taps_of, side))
    assert weights.regressors is not None
    weights.regressors.bias3[0, 1] = np.inf
    got = run(weights, stacks_of(make_taps(taps_of, 1), make_interpreter(taps_of, side)))
    assert not got["counts"][:, NUM_BINS].any()
    assert (got["values"][0, :, 5] > 0).tolist()[:2] == [False, True]


def test_weights_that_the_dtype_cannot_hold_are_refused() -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    interpreter = make_interpreter(taps_of, side)
    weights = weights_of(interpreter)
    weights.classifiers.weight2[0, 0, 0] = 1e5
    with pytest.raises(ValueError, match=r"class_weight2 holds 1e\+05, more than float16"):
        run(weights, stacks_of(make_taps(taps_of, 1), interpreter), half=np.float16)
