"""TensorRT-RTX as the gate: its parser takes every node of every exported graph, its builder makes a plan; no GPU."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from labelmint_export.bundle.graphs import CropWindow, SynthesisGraph, bake_gains
from labelmint_export.bundle.onnx_graphs import export_module
from labelmint_export.checkpoints.loading import load_generator
from labelmint_export.errors import BuildError, CannotRunError
from labelmint_export.generator.stylegan3 import StyleGAN3Generator
from labelmint_export.generator.stylegan3_config import StyleGAN3Config
from labelmint_export.precision import Precision
from labelmint_export.targets.onnx_target import MODEL_FILE
from labelmint_export.targets.registry import find_target
from labelmint_export.targets.settings import BatchProfile, TargetSettings
from labelmint_export.targets.tensorrt_builder import NATIVE, import_tensorrt, read_timing_cache
from labelmint_export.targets.tensorrt_plans import PLAN_FILE
from labelmint_service.settings import EMBEDDED_BUNDLE
from tests.export.built_bundle import BuiltBundle
from tests.export.targets.made import make_model, onnx_once, rejected_nodes

CHECKPOINT = Path(__file__).parents[2] / "data/checkpoints/stylegan3_r_32_c10.pkl"

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install 'labelmint[trt]'")


@pytest.mark.parametrize("name", ["mapping", "synthesis", "interpreter", "model"])
def test_every_node_of_a_bundle_is_taken(built: BuiltBundle, name: str) -> None:
    assert rejected_nodes(built.path / f"{name}.onnx") == []


@pytest.mark.parametrize("name", ["mapping", "synthesis", "interpreter", "model"])
def test_every_node_of_the_embedded_bundle_is_taken(name: str) -> None:
    assert rejected_nodes(EMBEDDED_BUNDLE / f"{name}.onnx") == []


@pytest.mark.parametrize(
    ("built", "precision"),
    [
        ("unusual_built", "float32"),
        ("plain_built", "float16"),
        ("unusual_built", "bfloat16"),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in (("plain_built", "float32"), ("unusual_built", "float16"), ("plain_built", "bfloat16"))
        ),
    ],
    indirect=["built"],
)
def test_every_node_of_the_target_is_taken(
    built: BuiltBundle, precision: Precision, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert rejected_nodes(onnx_once(tmp_path_factory, built, precision) / MODEL_FILE) == []


def test_every_node_of_stylegan3s_synthesis_is_taken(tmp_path: Path) -> None:
    """Its kinds of layers, once each: radial and separable filters, the crop of the margin, the colours."""
    config = load_generator(CHECKPOINT).config
    assert isinstance(config, StyleGAN3Config)
    radial, upsampling, colours = config.layers[0], config.layers[5], config.layers[-1]
    assert radial.down_radial
    cropping = replace(upsampling, out_size=32, out_channels=32, padding=(-22, -25, -22, -25), down_radial=False)
    generator = StyleGAN3Generator(replace(config, layers=(radial, cropping, colours))).eval().requires_grad_(False)
    crop = CropWindow(top=0, left=0, height=32, width=32)
    graph = SynthesisGraph(bake_gains(generator), generator.feature_specs, "const", crop, torch.float16)
    ws = torch.randn(2, generator.config.num_ws, config.w_dim)
    onnx.save(export_module(graph, (ws,), ["ws"], graph.output_names), tmp_path / "synthesis.onnx")
    assert rejected_nodes(tmp_path / "synthesis.onnx") == []


def test_gate_names_a_node_that_is_not_taken(tmp_path: Path) -> None:
    """uint8 in the middle of a graph, which onnxruntime takes and TensorRT does not."""
    cast = helper.make_node("Cast", ["x"], ["bytes"], name="early_cast", to=TensorProto.UINT8)
    turn = helper.make_node("Transpose", ["bytes"], ["y"], name="turn", perm=[1, 0])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, [3, 2])
    model = helper.make_model(
        helper.make_graph([cast, turn], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "bad.onnx")
    refused = rejected_nodes(tmp_path / "bad.onnx")
    assert refused[0].name == "early_cast"
    assert "UINT8" in refused[0].reason


def test_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph" * 10)
    assert rejected_nodes(tmp_path / "bad.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision",
    ["float16", *(pytest.param(precision, marks=pytest.mark.thorough) for precision in ("float32", "bfloat16"))],
)
def test_plan_is_built_without_a_gpu(plain_built: BuiltBundle, precision: Precision, tmp_path: Path) -> None:
    settings = TargetSettings(
        profile=BatchProfile(min_batch=1, opt_batch=2, max_batch=3), compute_capabilities=("8.6", "8.9")
    )
    written = find_target("tensorrt-rtx", precision).write(make_model(plain_built, precision), settings, tmp_path)
    assert (tmp_path / PLAN_FILE).stat().st_size > 10_000
    assert not list(tmp_path.glob("*.onnx"))
    assert written.versions["tensorrt_rtx"] == tensorrt_rtx.__version__
    assert written.device["compute_capabilities"] == ["8.6", "8.9"]


def test_unknown_gpu_is_refused_with_those_that_are_known(plain_built: BuiltBundle, tmp_path: Path) -> None:
    target = find_target("tensorrt-rtx", "float32")
    settings = TargetSettings(compute_capabilities=("3.0",))
    with pytest.raises(BuildError, match=r"'3\.0' is none of TensorRT-RTX's, expected some of .*'8\.6'"):
        target.write(make_model(plain_built, "float32"), settings, tmp_path)


def test_rtx_refuses_the_timings_that_only_native_tensorrt_takes(plain_built: BuiltBundle, tmp_path: Path) -> None:
    target = find_target("tensorrt-rtx", "float32")
    with pytest.raises(BuildError, match="measures when it loads a plan"):
        target.write(make_model(plain_built, "float32"), TargetSettings(timing_cache=b"timings"), tmp_path)


def test_timing_cache_is_read_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    with pytest.raises(BuildError, match="which is no file") as caught:
        read_timing_cache(path)
    assert caught.value.field == "timing_cache"
    path.touch()
    with pytest.raises(BuildError, match="0 bytes, expected 1 to"):
        read_timing_cache(path)
    path.write_bytes(b"timings")
    assert read_timing_cache(path) == b"timings"


def test_plan_does_not_run_on_a_processor(plain_built: BuiltBundle, tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="NVIDIA GPU"):
        find_target("tensorrt-rtx", "float32").load(tmp_path, make_model(plain_built, "float32"), "cpu")


def test_plan_without_its_library_is_no_failure_of_the_others(
    plain_built: BuiltBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU: `verify --engine all` says that it did not run, and goes on."""

    def fail(*_: object) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(CannotRunError, match="TensorRT-RTX is not installed"):
        find_target("tensorrt-rtx", "float32").load(tmp_path, make_model(plain_built, "float32"), "cuda")


def test_missing_library_says_how_to_get_it() -> None:
    try:
        import_tensorrt(NATIVE)
    except BuildError as error:
        assert "TensorRT is not installed" in str(error)
    else:
        pytest.skip("native TensorRT is installed")
