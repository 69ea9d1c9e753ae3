"""The compiled kernel against the plain algorithm in float64, in every form that this processor runs."""

import platform
import re
import runpy
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from labelmint.graphs import VOTE_RULES
from labelmint.v1 import bundle_pb2
from labelmint_export.generator import TapSpec
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.interpreter.fused import FusedInterpreter
from labelmint_service.engine.fused import native
from labelmint_service.engine.fused.bundles import LabelFrame
from labelmint_service.engine.fused.kernel import InterpreterKernel
from labelmint_service.engine.fused.native import EXACT as EXACT_NAME
from labelmint_service.engine.fused.native import Variant, find_variant, load_library, variants
from labelmint_service.engine.fused.packing import round_to_bfloat16
from labelmint_service.engine.fused.peaks import find_peaks
from labelmint_service.engine.fused.weights import InterpreterWeights, check_levels, weights_from_tables
from labelmint_service.errors import EngineStartError
from tests.export.plain_interpreter import plain_labels
from tests.export.test_fused_interpreter import LAYOUTS
from tests.export.tiny_parts import make_interpreter, make_taps, stack_taps

ROOT = Path(__file__).parents[2]
EXACT = [variant for variant in variants() if not variant.bfloat16]
ROUNDED = [variant for variant in variants() if variant.bfloat16]
FORMS = [pytest.param(variant, id=variant.name) for variant in EXACT]
ROUNDED_FORMS = [pytest.param(variant, id=variant.name) for variant in ROUNDED]

Stacks = dict[int, npt.NDArray[np.float32]]


def weights_of(interpreter: Interpreter, rule: str = "majority") -> InterpreterWeights:
    fused = FusedInterpreter(interpreter, rule)
    channels: dict[int, int] = {}
    for tap in interpreter.config.taps:
        channels[tap.resolution] = channels.get(tap.resolution, 0) + tap.channels
    return weights_from_tables(fused.tables(), channels, interpreter.config.label_resolution, rule)


def frame_of(size: int, top: int = 0, left: int = 0, height: int = 0, width: int = 0) -> LabelFrame:
    """What of a label picture is delivered; all of it unless told otherwise."""
    manifest = bundle_pb2.Manifest(
        backbone=bundle_pb2.Backbone(resolution=size),
        frame=bundle_pb2.Frame(crop_top=top, crop_left=left, label_height=height or size, label_width=width or size),
    )
    return LabelFrame(manifest, size)


def stacks_of(taps: Mapping[str, torch.Tensor], interpreter: Interpreter) -> Stacks:
    stacks = stack_taps(taps, interpreter.config.taps)
    return {int(name.removeprefix("tap_r")): np.ascontiguousarray(x.float().numpy()) for name, x in stacks.items()}


# No powers of two, several groups of pixels in a row, and groups that begin within a row of a level.
WIDE: dict[str, tuple[tuple[TapSpec, ...], int]] = {
    f"{side} pixels": (tuple(TapSpec(f"r{r}", 3, r) for r in levels), side)
    for side, levels in {40: (5, 10, 20, 40), 96: (12, 24, 48, 96), 160: (10, 40, 80, 160)}.items()
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", VOTE_RULES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_kernel_equals_the_plain_algorithm(layout: str, rule: str, form: Variant) -> None:
    check_equals_the_plain_algorithm(*LAYOUTS[layout], rule, form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", WIDE)
def test_float32_kernel_equals_the_plain_algorithm_at_other_sizes(layout: str, form: Variant) -> None:
    check_equals_the_plain_algorithm(*WIDE[layout], "majority", form)


def check_equals_the_plain_algorithm(taps_of: tuple[TapSpec, ...], side: int, rule: str, form: Variant) -> None:
    interpreter, taps = make_interpreter(taps_of, side), make_taps(taps_of, 4)
    expected = plain_labels(interpreter.double(), taps, rule)
    got = InterpreterKernel(weights_of(interpreter.float(), rule), form, 2).run(stacks_of(taps, interpreter))

    assert float((torch.from_numpy(got.label) == expected.label).double().mean()) >= 0.9995
    np.testing.assert_allclose(got.uncertainty, expected.uncertainty_map.numpy(), rtol=0, atol=1e-5)
    peaks = find_peaks(got.heatmaps)
    np.testing.assert_allclose(peaks[..., 2], expected.keypoints[..., 2].numpy(), rtol=0, atol=1e-4)
    settled = expected.peak_margin.numpy() > 1e-5
    np.testing.assert_allclose(peaks[..., :2][settled], expected.keypoints[..., :2].numpy()[settled], rtol=0, atol=1e-3)
    assert got.finite.all()


@pytest.mark.parametrize("form", ROUNDED_FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_kernel_is_near_the_plain_algorithm(layout: str, form: Variant) -> None:
    taps_of, side = LAYOUTS[layout]
    interpreter, taps = make_interpreter(taps_of, side), make_taps(taps_of, 4)
    expected = plain_labels(interpreter.double(), taps, "majority")
    got = InterpreterKernel(weights_of(interpreter.float()), form, 2).run(stacks_of(taps, interpreter))

    # Random members are torn at every pixel, so bfloat16 flips more votes here than in a trained ensemble.
    assert float((torch.from_numpy(got.label) == expected.label).double().mean()) >= 0.95
    assert np.abs(got.uncertainty - expected.uncertainty_map.numpy()).mean() < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_model_of_two_classes_without_keypoints(form: Variant) -> None:
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter = make_interpreter(taps_of, side, num_classes=2, num_keypoints=0, num_members=3)
    taps = make_taps(taps_of, 2)
    expected = plain_labels(interpreter.double(), taps, "majority")
    got = InterpreterKernel(weights_of(interpreter.float()), form, 1).run(stacks_of(taps, interpreter))
    assert float((torch.from_numpy(got.label) == expected.label).double().mean()) >= 0.9995
    assert got.heatmaps.shape == (2, 0, side, side)


@pytest.mark.parametrize("form", [*FORMS, *ROUNDED_FORMS])
@pytest.mark.parametrize("layout", [LAYOUTS["two taps a level"], *WIDE.values()], ids=["32 pixels", *WIDE])
def test_bits_do_not_depend_on_threads_rows_or_neighbours(
    layout: tuple[tuple[TapSpec, ...], int], form: Variant
) -> None:
    taps_of, side = layout
    interpreter, taps = make_interpreter(taps_of, side), make_taps(taps_of, 3)
    weights, stacks = weights_of(interpreter), stacks_of(taps, interpreter)
    whole = InterpreterKernel(weights, form, 1).run(stacks)
    for threads in (2, 3, 7):
        shared = InterpreterKernel(weights, form, threads).run(stacks)
        assert shared.label.tobytes() == whole.label.tobytes()
        assert shared.uncertainty.tobytes() == whole.uncertainty.tobytes()
        assert shared.heatmaps.tobytes() == whole.heatmaps.tobytes()
    alone = InterpreterKernel(weights, form, 2).run({r: stack[1:2] for r, stack in stacks.items()}, range(5, 23))
    assert alone.label[0, 5:23].tobytes() == whole.label[1, 5:23].tobytes()
    assert alone.uncertainty[0, 5:23].tobytes() == whole.uncertainty[1, 5:23].tobytes()
    assert not alone.uncertainty[0, 23:].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("resolution", [4, 8, 16, 32])
@pytest.mark.parametrize("form", [*FORMS, *ROUNDED_FORMS])
def test_number_that_is_none_shows_in_its_picture_alone(form: Variant, resolution: int, value: float) -> None:
    taps_of, side = LAYOUTS["two taps a level"]
    interpreter = make_interpreter(taps_of, side)
    stacks = stacks_of(make_taps(taps_of, 3), interpreter)
    stacks[resolution][1, 0, 2, 3] = value
    got = InterpreterKernel(weights_of(interpreter), form, 2).run(stacks)
    assert got.finite.tolist() == [True, False, True]


def test_rounding_to_bfloat16_is_that_of_torch() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    values[:4] = [1.00390625, 1.01171875, 0.0, -0.0]  # the first two lie in the middle
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(round_to_bfloat16(values), expected.astype(np.uint32))


def test_library_was_compiled_from_the_sources_beside_it() -> None:
    build = runpy.run_path(str(ROOT / "service/kernel/build.py"))
    assert load_library().lm_sources().decode() == build["hash_of_sources"]()


def test_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "interpreter.so")
    with pytest.raises(EngineStartError, match=r"interpreter\.so does not load .*; install labelmint again"):
        load_library.__wrapped__()


@pytest.mark.parametrize(("system", "machine"), [("Linux", "aarch64"), ("Darwin", "arm64"), ("Windows", "AMD64")])
def test_system_without_a_kernel_is_named(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(EngineStartError, match=f"but this is {system} on {machine}; choose engine 'onnxruntime'"):
        load_library.__wrapped__()


@pytest.mark.parametrize("name", ["avx2", EXACT_NAME])
def test_processor_that_runs_no_form_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(native, "variants", tuple)
    with pytest.raises(EngineStartError, match=r"^the fused engine's kernel needs AVX2 and FMA, .*'onnxruntime'$"):
        find_variant(name)


def test_form_that_this_processor_lacks_is_refused() -> None:
    with pytest.raises(EngineStartError, match=re.escape("kernel is 'mmx', but of the kernel's forms")):
        find_variant("mmx")


# A level that no kernel can resize would be read in the wrong places.
@pytest.mark.parametrize(
    ("levels", "size"),
    [([16], 12), ([24], 8), ([2, 6], 48), ([4], 12), ([3], 6), ([16384], 16384), ([4, 8, 16, 32, 64], 4)],
)
def test_levels_that_do_not_fit_the_labels_are_refused(levels: list[int], size: int) -> None:
    with pytest.raises(ValueError, match=rf"^levels \[{levels[0]}"):
        check_levels(levels, size)


Tables = dict[str, npt.NDArray[np.float32]]


def _without_members(tables: Tables) -> None:
    for name in ("weight2", "bias2", "weight3", "bias3"):
        tables[f"classifiers.{name}"] = tables[f"classifiers.{name}"][:0]


def _one_member_in_layer_3(tables: Tables) -> None:
    for name in ("weight3", "bias3"):
        tables[f"classifiers.{name}"] = tables[f"classifiers.{name}"][:1]


def _narrow_layer_3(tables: Tables) -> None:
    tables["classifiers.weight3"] = tables["classifiers.weight3"][..., :2]


def _without_classes(tables: Tables) -> None:
    for name in ("weight3", "bias3"):
        tables[f"classifiers.{name}"] = tables[f"classifiers.{name}"][:, :0]


def _not_a_number(tables: Tables) -> None:
    tables["bias1"] = tables["bias1"].copy()
    tables["bias1"][1] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_members, "is "),
        (_one_member_in_layer_3, r"weight3 of the members is \[1, 4, 6\], expected \[5, 4, 6\]"),
        (_narrow_layer_3, r"weight3 of the members is \[5, 4, 2\], expected \[5, 4, 6\]"),
        (_without_classes, r"weight3 of the members is \[5, 0, 6\]"),
        (_not_a_number, "bias1 holds a number that is not finite"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(change: Callable[[Tables], None], message: str) -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    tables = FusedInterpreter(make_interpreter(taps_of, side)).tables()
    change(tables)
    with pytest.raises(ValueError, match=message):
        weights_from_tables(tables, {tap.resolution: tap.channels for tap in taps_of}, side, "majority")


def test_interrupted_run_waits_for_the_threads_that_write_to_its_arrays() -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    interpreter = make_interpreter(taps_of, side)
    kernel = InterpreterKernel(weights_of(interpreter), EXACT[0], 2)
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    end_later = threading.Timer(0.2, may_end.set)

    def label_rows(_plan: object, _picture: object, first: int, _last: int, _scratch: int) -> int:
        if first:
            begun.set()
            may_end.wait()
            ended.set()
            return 1
        begun.wait()
        end_later.start()
        raise KeyboardInterrupt

    kernel._rows = label_rows
    with pytest.raises(KeyboardInterrupt):
        kernel.run(stacks_of(make_taps(taps_of, 1), interpreter))
    assert ended.is_set()


def test_stack_of_another_shape_is_refused() -> None:
    taps_of, side = LAYOUTS["one tap a level"]
    interpreter = make_interpreter(taps_of, side)
    stacks = stacks_of(make_taps(taps_of, 2), interpreter)
    kernel = InterpreterKernel(weights_of(interpreter), EXACT[0], 1)
    with pytest.raises(ValueError, match=re.escape("stack 8 is float32 [2, 4, 8, 8], expected contiguous")):
        kernel.run({**stacks, 8: np.ascontiguousarray(stacks[8][:, :4])})
