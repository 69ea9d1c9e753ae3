"""Running a bundle's graphs in onnxruntime just as its manifest says."""

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from labelmint.v1 import bundle_pb2
from labelmint_export.errors import BuildError

_LEVELS = {
    "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_MODES = {
    "sequential": onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    "parallel": onnxruntime.ExecutionMode.ORT_PARALLEL,
}

Arrays = dict[str, npt.NDArray[np.generic]]


# Float32 in full, and algorithms that do not depend on timing.
_PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "cpu": [("CPUExecutionProvider", {})],
    "cuda": [
        ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
        ("CPUExecutionProvider", {}),
    ],
}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version. That of onnxruntime is its own: it comes as a distribution of another name for GPUs."""
    return {name: onnxruntime.__version__ if name == "onnxruntime" else metadata.version(name) for name in packages}


class GraphRunner:
    """One graph, with the manifest's session options.

    Args:
        path: The `.onnx` file; its weights lie beside it.
        options: From the manifest.
        device: Where it runs.

    Raises:
        BuildError: onnxruntime does not load the graph, or has not the device.
    """

    def __init__(
        self, path: Path, options: bundle_pb2.OnnxRuntimeOptions, device: Literal["cpu", "cuda"] = "cpu"
    ) -> None:
        wanted = _PROVIDERS[device]
        if wanted[0][0] not in onnxruntime.get_available_providers():
            raise BuildError(
                f"onnxruntime has {onnxruntime.get_available_providers()}, not {wanted[0][0]}; install onnxruntime-gpu "
                "in an environment without onnxruntime",
                field="device",
            )
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = options.intra_op_num_threads
        session_options.inter_op_num_threads = options.inter_op_num_threads
        session_options.graph_optimization_level = _LEVELS[options.graph_optimization_level]
        session_options.execution_mode = _MODES[options.execution_mode]
        for key, value in options.config_entries.items():
            session_options.add_session_config_entry(key, value)
        try:
            self._session = onnxruntime.InferenceSession(str(path), session_options, providers=wanted)
        except Exception as error:  # onnxruntime's errors share no public base class
            raise BuildError(f"onnxruntime does not load {path.name}: {error}", field="graphs") from error
        if self._session.get_providers()[0] != wanted[0][0]:
            raise BuildError(
                f"onnxruntime runs {path.name} on {self._session.get_providers()}, not on {wanted[0][0]}; its CUDA "
                "libraries are missing or do not fit",
                field="device",
            )
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Run the graph: inputs by name to outputs by name."""
        return dict(zip(self.output_names, self._session.run(None, dict(feeds)), strict=True))
