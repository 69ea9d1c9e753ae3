"""ONNX graph of the whole model: `model.onnx` and its weights in `weights.bin`."""

import functools
from importlib import metadata
from pathlib import Path

import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors

from labelmint.v1 import bundle_pb2
from labelmint_export.bundle.onnx_graphs import OPSET, export_module, write_graphs
from labelmint_export.bundle.runtime import GraphRunner
from labelmint_export.errors import BuildError, CannotRunError
from labelmint_export.precision import NOT_ROUNDED, Precision
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Device, Engine, Target, Written
from labelmint_export.targets.settings import TargetSettings

MODEL_NAME = "model"
MODEL_FILE = f"{MODEL_NAME}.onnx"
OPSETS: dict[Precision, int] = {"float32": OPSET, "float16": OPSET, "bfloat16": 22}
"""Convolutions take bfloat16 from opset 22 on."""
OPTIONS = bundle_pb2.OnnxRuntimeOptions(
    graph_optimization_level="all", execution_mode="sequential", inter_op_num_threads=1
)
"""What graphs of targets run with."""


@functools.lru_cache(maxsize=1)  # exporting takes long, and several targets are written from the same graph
def make_onnx(model: TargetModel) -> onnx.ModelProto:
    """Export the model; dtypes and shapes of every node are checked. The graph belongs to all callers: copy it."""
    graph = export_module(
        model.module, tuple(model.inputs.values()), list(model.inputs), model.output_names, OPSETS[model.precision]
    )
    onnx.checker.check_model(graph, full_check=True)
    return graph


def write_onnx(model: TargetModel, folder: Path) -> Written:
    """Write graph and weights into a folder."""
    graph = onnx.ModelProto()
    graph.CopyFrom(make_onnx(model))  # writing moves the weights out
    write_graphs({MODEL_NAME: graph}, folder)
    packages = ("torch", "onnx", "onnxscript")
    return Written(
        versions={name: metadata.version(name) for name in packages},
        details={"opset": OPSETS[model.precision], "ir_version": graph.ir_version, "num_nodes": len(graph.graph.node)},
    )


def load_onnx(
    path: Path, precision: Precision, device: Device, options: bundle_pb2.OnnxRuntimeOptions = OPTIONS
) -> Engine:
    """Load a graph in onnxruntime.

    Args:
        path: The `.onnx` file; its weights lie beside it.
        precision: Of its feature maps.
        device: Where it runs.
        options: Of the session.

    Returns:
        The engine.

    Raises:
        BuildError: onnxruntime does not load the graph.
        CannotRunError: onnxruntime has no kernels for the precision, or not the device.
    """
    try:
        runner = GraphRunner(path, options, device)
    except BuildError as error:
        missing = isinstance(error.__cause__, onnxruntime_errors.NotImplemented)
        if missing and precision == "bfloat16" and device == "cpu":
            raise CannotRunError("onnxruntime has no bfloat16 convolutions on the CPU") from error
        if error.field == "device":
            raise CannotRunError(str(error)) from error
        raise
    computes = f"onnxruntime, {device}"
    if device == "cpu" and precision == "float16":
        computes += f", {NOT_ROUNDED}"
    return Engine(run=runner.run, computes=computes, rounds=device == "cuda" or precision == "float32")


def _write(model: TargetModel, _settings: TargetSettings, folder: Path) -> Written:
    return write_onnx(model, folder)


def _load(folder: Path, model: TargetModel, device: Device) -> Engine:
    return load_onnx(folder / MODEL_FILE, model.precision, device)


TARGET = Target(name="onnx", summary="ONNX graph, for onnxruntime and converters", write=_write, load=_load)
