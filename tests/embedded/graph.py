"""The embedded bundle's `model` graph, run without the service."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from labelmint.addresses import latents
from labelmint.bundle import Bundle


def run_model_graph(
    embedded: Bundle, seed: int, indices: range
) -> dict[str, npt.NDArray[Any]]:  # Any: dtypes of the outputs
    """The bundle's `model` graph in onnxruntime, with nothing of the service in between."""
    manifest = embedded.manifest
    wanted = manifest.runtime.onnxruntime
    options = onnxruntime.SessionOptions()
    assert (wanted.graph_optimization_level, wanted.execution_mode) == ("all", "sequential")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = wanted.intra_op_num_threads
    options.inter_op_num_threads = wanted.inter_op_num_threads
    for key, value in wanted.config_entries.items():
        options.add_session_config_entry(key, value)
    path = embedded.root / manifest.graphs.model
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    size = manifest.runtime.batch_size
    parts = []
    for start in range(indices.start, indices.stop, size):
        places = np.arange(start, start + size, dtype=np.uint64)
        feeds = {
            "z": latents(seed, places, manifest.backbone.z_dim),
            "truncation_psi": np.full(size, manifest.truncation.default_psi, np.float32),
        }
        parts.append(dict(zip(names, session.run(names, feeds), strict=True)))
    return {name: np.concatenate([part[name] for part in parts])[: len(indices)] for name in names}
