"""The worker: one runtime, which runs the graph `synthesis` of a bundle on style vectors and times that."""

import argparse
import importlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.errors import BenchmarkError
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from labelmint.addresses import latents
from labelmint.bundle import Bundle, open_bundle
from labelmint_service.engine.graph_runs import run_graph
from labelmint_service.engine.sessions import find_provider, open_session

RUNTIMES = ("onnxruntime", "openvino")

Floats = npt.NDArray[np.float32]
Paint = Callable[[Floats], dict[str, Floats]]


def open_onnxruntime(bundle: Bundle) -> Paint:
    """As the service runs it."""
    manifest = bundle.manifest
    session = open_session(bundle, manifest.graphs.synthesis, manifest.runtime.onnxruntime, find_provider("cpu"))
    names = [output.name for output in session.get_outputs()]
    return lambda ws: run_graph(session, names, {"ws": ws})


def open_openvino(bundle: Bundle) -> Paint:
    """In float32, which it would not choose by itself on processors with bfloat16, and on as many threads."""
    try:
        openvino = importlib.import_module("openvino")  # nothing else needs it
    except ImportError as error:
        raise BenchmarkError("openvino is not installed; pip install openvino", field="runtimes") from error
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    threads = bundle.manifest.runtime.onnxruntime.intra_op_num_threads
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    model = core.compile_model(core.read_model(bundle.path_of(bundle.manifest.graphs.synthesis)), "CPU", options)
    return lambda ws: {output.get_any_name(): array for output, array in model({"ws": ws}).items()}


def _prepare() -> tuple[Document, Answer]:
    parser = argparse.ArgumentParser(description="Paint pictures of a bundle with a runtime.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--runtime", choices=RUNTIMES, required=True)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    manifest = bundle.manifest
    if manifest.backbone.c_dim:
        raise BenchmarkError(f"{bundle.name} has classes, expected an unconditional model", field="bundles")
    mapping = open_session(bundle, manifest.graphs.mapping, manifest.runtime.onnxruntime, find_provider("cpu"))
    paint = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}[arguments.runtime](bundle)

    def answer(request: Document) -> Document:
        indices = np.arange(request["batch_size"], dtype=np.uint64)
        z = latents(request["seed"], indices, manifest.backbone.z_dim)
        feed = {"z": z, "truncation_psi": np.ones(len(z), np.float32)}
        ws = run_graph(mapping, ["ws"], feed)["ws"]
        outputs, durations = paint(ws), []
        for _ in range(request["runs"]):
            began = time.perf_counter_ns()
            outputs = paint(ws)
            durations.append(time.perf_counter_ns() - began)
        np.savez(request["outputs"], allow_pickle=False, **outputs)
        return {"ns": durations}

    return {"runtime": arguments.runtime}, answer


if __name__ == "__main__":
    answer_requests(_prepare)
