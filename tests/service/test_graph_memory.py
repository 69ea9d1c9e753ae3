"""A graph that asks for more memory than there is, in the real onnxruntime, in a process with a limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

CODE = """
import resource, sys
import numpy as np, onnxruntime, psutil
from labelmint_service.engine.graph_runs import run_graph
from labelmint_service.errors import EngineMemoryError

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
few = run_graph(session, ["y"], {"n": np.array([8], np.int64)})
limit = psutil.Process().memory_info().vms + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    run_graph(session, ["y"], {"n": np.array([2**30], np.int64)})
except EngineMemoryError as error:
    print("memory:", error)
print("goes on:", run_graph(session, ["y"], {"n": np.array([8], np.int64)})["y"].tolist() == few["y"].tolist())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_onnxruntime_without_memory_is_known_and_goes_on(tmp_path: Path) -> None:
    zeros = helper.make_node("ConstantOfShape", ["n"], ["x"])  # float32
    raised = helper.make_node("Exp", ["x"], ["y"])
    n = helper.make_tensor_value_info("n", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    graph = helper.make_graph([zeros, raised], "large", [n], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.save(model, tmp_path / "large.onnx")
    command = [sys.executable, "-c", CODE, str(tmp_path / "large.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["memory: memory ran out in onnxruntime", "goes on: True"]
