"""ONNX graphs in three precisions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from labelmint_export.errors import BuildError, CannotRunError
from labelmint_export.precision import Precision
from labelmint_export.targets.onnx_target import MODEL_FILE, load_onnx
from tests.export.built_bundle import BuiltBundle
from tests.export.targets.made import make_model, onnx_once, run_module

ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16")


@pytest.fixture(scope="module")
def bundles(plain_built: BuiltBundle, unusual_built: BuiltBundle) -> dict[Precision, BuiltBundle]:
    """What each graph is written from; that of the plain bundle in float16 is the one that other targets need."""
    return {"float32": unusual_built, "float16": plain_built, "bfloat16": unusual_built}


@pytest.fixture(scope="module")
def written(bundles: dict[Precision, BuiltBundle], tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    return {precision: onnx_once(tmp_path_factory, built, precision) for precision, built in bundles.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_stands_in_the_graph(written: dict[Precision, Path], precision: Precision) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(written[precision] / MODEL_FILE), data_prop=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}

    def types_of(*operators: str) -> set[int]:
        return {types[node.input[0]] for node in graph.node if node.op_type in operators}

    assert ELEMENT[precision] in types_of("Conv")
    # The upsampling of the picture is a transposed convolution too; colours are summed in float32. TensorRT has none in
    # bfloat16.
    transposed = {TensorProto.FLOAT} if precision == "bfloat16" else {ELEMENT[precision], TensorProto.FLOAT}
    assert types_of("ConvTranspose") == transposed
    assert ELEMENT[precision] in types_of("MatMul")
    for operator in ("LogSoftmax", "Exp", "Log", "Sqrt", "Gemm", "ArgMax", "Reciprocal"):
        assert types_of(operator) == {TensorProto.FLOAT}, operator


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("count", [1, 3])
def test_graph_runs_with_any_batch(
    written: dict[Precision, Path], bundles: dict[Precision, BuiltBundle], precision: Precision, count: int
) -> None:
    feeds = bundles[precision].feeds(seed=6, indices=range(count), psi=0.9)
    engine = load_onnx(written[precision] / MODEL_FILE, precision, "cpu")
    got, expected = engine.run(feeds), bundles[precision].plain_outputs(feeds)
    assert (got["label"] == expected["label"]).mean() >= (0.999 if precision == "float32" else 0.98)
    assert np.abs(np.asarray(got["image"], float) - expected["image"]).mean() <= 0.5
    assert np.asarray(got["finite"]).all()


def test_report_says_that_float16_is_computed_in_float32(written: dict[Precision, Path]) -> None:
    engine = load_onnx(written["float16"] / MODEL_FILE, "float16", "cpu")
    assert not engine.rounds
    assert "in float32" in engine.computes


def test_bfloat16_does_not_run_on_the_processor_and_says_why(written: dict[Precision, Path]) -> None:
    with pytest.raises(CannotRunError, match="no bfloat16"):
        load_onnx(written["bfloat16"] / MODEL_FILE, "bfloat16", "cpu")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def rename_an_operator(path: Path) -> None:
    graph = onnx.load(path, load_external_data=False)
    next(node for node in graph.graph.node if node.op_type == "Conv").op_type = "Convolve"
    path.write_bytes(graph.SerializeToString())


@pytest.mark.parametrize("damage", [cut_short, rename_an_operator])
def test_broken_bfloat16_graph_is_not_taken_for_one_that_does_not_run_here(
    written: dict[Precision, Path], damage: Callable[[Path], None], tmp_path: Path
) -> None:
    shutil.copytree(written["bfloat16"], tmp_path / "broken")
    damage(tmp_path / "broken" / MODEL_FILE)
    with pytest.raises(BuildError, match=r"does not load model\.onnx"):
        load_onnx(tmp_path / "broken" / MODEL_FILE, "bfloat16", "cpu")


def test_missing_cuda_provider_is_no_silent_fallback(written: dict[Precision, Path]) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(CannotRunError, match="install onnxruntime-gpu"):
        load_onnx(written["float32"] / MODEL_FILE, "float32", "cuda")


def test_half_weights_take_half_the_room(written: dict[Precision, Path]) -> None:
    graph = onnx.load(written["float16"] / MODEL_FILE).graph
    stored = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.dims[2] == 3}
    assert stored == {TensorProto.FLOAT16}


def test_onnxruntime_agrees_with_the_emulation(written: dict[Precision, Path], plain_built: BuiltBundle) -> None:
    """Same half weights; what differs is the rounding of the feature maps."""
    feeds = plain_built.feeds(seed=8, indices=range(3), psi=0.9)
    ran = load_onnx(written["float16"] / MODEL_FILE, "float16", "cpu").run(feeds)
    emulated = run_module(make_model(plain_built, "float16"), feeds)
    np.testing.assert_allclose(
        np.asarray(ran["uncertainty_map"], float), emulated["uncertainty_map"].astype(float), rtol=0, atol=0.02
    )
