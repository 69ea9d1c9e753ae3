"""The onnxruntime engine: runs the graphs of a bundle as they are.

N images (rows asked for), B batch size of the profile (rows computed), L num_ws, K keypoints, H x W the frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime

from labelmint.bundle import Bundle
from labelmint.graphs import input_specs, output_specs, stack_name
from labelmint_service.engine.graph_runs import GraphArrays, check_shapes, mean_style, pad_latents, pad_rows, run_graph
from labelmint_service.engine.graphics import describe_graphics
from labelmint_service.engine.processor import describe_processor
from labelmint_service.engine.protocol import EngineBatch, JsonValue, LatentInputs
from labelmint_service.engine.sessions import check_signature, describe_options, find_provider, open_session


class OnnxRuntimeEngine:
    """Runs `model` for latents, and `synthesis` and `interpreter` for explicit styles.

    Every run is padded to the batch of the manifest's profile by repeating its first row. Rows do not see each other.

    Args:
        bundle: Verified bundle.
        provider: "cpu" or "cuda". It runs, or the engine does not start.
        device: Number of the GPU; None for the first, or on a processor.
        algorithms: How cuDNN computes on a GPU.

    Raises:
        EngineStartError: The provider is missing, or a graph does not load or does not fit the manifest.
    """

    name = "onnxruntime"

    def __init__(
        self, bundle: Bundle, *, provider: str = "cpu", device: int | None = None, algorithms: str = "repeatable"
    ) -> None:
        manifest = bundle.manifest
        self.batch_size = manifest.runtime.batch_size
        self.stages_ns: dict[str, int] = {}
        self._bundle = bundle
        self._provider_name = provider
        self._provider = find_provider(provider, device, algorithms)
        graphs = manifest.graphs
        self._outputs = output_specs(manifest)
        dtypes = {spec.name: spec.dtype for spec in self._outputs}
        # Now, while the files are those that were verified, and before anybody measures what the model takes.
        self._model = self._open(graphs.model)
        check_signature(self._model, graphs.model, {spec.name for spec in input_specs(manifest)}, dtypes)
        self._synthesis = self._open(graphs.synthesis)
        painted = {name: dtypes[name] for name in ("image", "finite")}
        check_signature(self._synthesis, graphs.synthesis, {"ws"}, painted)
        self._interpreter = self._open(graphs.interpreter)
        self._stacks = sorted({stack_name(tap.resolution) for tap in manifest.taps})
        labelled = {name: dtype for name, dtype in dtypes.items() if name != "image"}
        check_signature(self._interpreter, graphs.interpreter, self._stacks, labelled)

    def describe(self) -> Mapping[str, JsonValue]:
        """Everything about the engine and this machine that the output bits depend on."""
        graphics = {"graphics": describe_graphics()} if self._provider_name == "cuda" else {}
        return {
            "engine": self.name,
            "version": onnxruntime.__version__,
            "build": onnxruntime.get_build_info().strip(),
            "provider": self._provider.onnxruntime_name,
            "provider_options": dict(self._provider.options),
            "batch_size": self.batch_size,
            "session_options": describe_options(self._bundle.manifest.runtime.onnxruntime),
            "processor": describe_processor(),
            **graphics,
        }

    def run(self, inputs: LatentInputs) -> EngineBatch:
        """Make and label the pictures of some latents; see Engine.run."""
        feed = pad_latents(self._bundle.manifest, inputs, self.batch_size)
        return self._batch(run_graph(self._model, [spec.name for spec in self._outputs], feed), inputs.num_rows)

    def run_styles(self, ws: npt.NDArray[np.float32]) -> EngineBatch:
        """Make and label the pictures of some style vectors; see Engine.run_styles."""
        backbone = self._bundle.manifest.backbone
        feed = {"ws": pad_rows(ws, "ws", (backbone.num_ws, backbone.w_dim), self.batch_size)}
        arrays = run_graph(self._synthesis, ["image", "finite", *self._stacks], feed)
        labels = [spec.name for spec in self._outputs if spec.name != "image"]
        labelled = run_graph(self._interpreter, labels, {name: arrays[name] for name in self._stacks})
        labelled["image"] = arrays["image"]
        labelled["finite"] = labelled["finite"] & arrays["finite"]
        return self._batch(labelled, len(ws))

    def average_style(self) -> npt.NDArray[np.float32]:
        """w_avg, float32 [w_dim]; see Engine.average_style."""
        return mean_style(self._open(self._bundle.manifest.graphs.mapping), self._bundle.manifest)

    def resize(self, batch_size: int) -> bool:
        """Pad runs to another number of rows; see Engine.resize."""
        self.batch_size = batch_size
        return True

    def close(self) -> None:
        """Free the sessions."""
        del self._model, self._synthesis, self._interpreter

    def _open(self, relative: str) -> onnxruntime.InferenceSession:
        return open_session(self._bundle, relative, self._bundle.manifest.runtime.onnxruntime, self._provider)

    def _batch(self, arrays: GraphArrays, num_rows: int) -> EngineBatch:
        check_shapes(arrays, self._outputs, self.batch_size)
        batch = EngineBatch(
            image=arrays["image"],
            label=arrays["label"],
            uncertainty_map=arrays["uncertainty_map"],
            keypoints=arrays.get("keypoints"),
            finite=arrays["finite"],
        )
        return batch.rows(0, num_rows)
