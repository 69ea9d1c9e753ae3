"""The onnxruntime engine: runs the graphs of a bundle as they are.

N images (rows asked for), B batch size of the profile (rows computed), L num_ws, K keypoints, H x W the frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime

from labelmint.bundle import Bundle
from labelmint_service.engine.graph_runs import GraphArrays, mean_style, pad_latents, pad_rows, run_graph
from labelmint_service.engine.graphics import describe_graphics
from labelmint_service.engine.processor import describe_processor
from labelmint_service.engine.protocol import EngineBatch, JsonValue
from labelmint_service.engine.sessions import describe_options, find_provider, open_session
from labelmint_service.errors import EngineRunError, EngineStartError

_ONNX_TYPES = {
    "image": "tensor(uint8)",
    "label": "tensor(uint8)",
    "uncertainty_map": "tensor(float16)",
    "keypoints": "tensor(float)",
    "finite": "tensor(bool)",
}


class OnnxRuntimeEngine:
    """Runs `model` for latents, and `synthesis` and `interpreter` for explicit styles.

    Every run is padded to the batch of the manifest's profile by repeating its first row. Rows do not see each other.

    Args:
        bundle: Verified bundle.
        provider: "cpu" or "cuda". It runs, or the engine does not start.
        device: Number of the GPU; None for the first, or on a processor.

    Raises:
        EngineStartError: The provider is missing, or a graph does not load or does not fit the manifest.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, *, provider: str = "cpu", device: int | None = None) -> None:
        manifest = bundle.manifest
        self.batch_size = manifest.runtime.batch_size
        self.stages_ns: dict[str, int] = {}
        self._bundle = bundle
        self._provider_name = provider
        self._provider = find_provider(provider, device)
        self._c_dim = manifest.backbone.c_dim
        self._shapes = _output_shapes(bundle)
        self._model = self._open(manifest.graphs.model)
        _check_names(self._model, manifest.graphs.model, {"z", "truncation_psi"} | ({"c"} if self._c_dim else set()))
        _check_outputs(self._model, manifest.graphs.model, self._shapes)
        # Now, while the files are those that were verified, and before anybody measures what the model takes.
        self._synthesis = self._open(manifest.graphs.synthesis)
        self._interpreter = self._open(manifest.graphs.interpreter)

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

    def run(
        self,
        z: npt.NDArray[np.float32],
        class_onehot: npt.NDArray[np.float32],
        truncation_psi: npt.NDArray[np.float32],
    ) -> EngineBatch:
        """Make and label the pictures of some latents; see Engine.run."""
        feed = pad_latents(self._bundle.manifest, z, class_onehot, truncation_psi, self.batch_size)
        return self._batch(run_graph(self._model, list(self._shapes), feed), len(z))

    def run_styles(self, ws: npt.NDArray[np.float32]) -> EngineBatch:
        """Make and label the pictures of some style vectors; see Engine.run_styles."""
        backbone = self._bundle.manifest.backbone
        feed = {"ws": pad_rows(ws, "ws", (backbone.num_ws, backbone.w_dim), self.batch_size)}
        taps = [tap.name for tap in self._interpreter.get_inputs()]
        arrays = run_graph(self._synthesis, ["image", "finite", *taps], feed)
        labels = [name for name in self._shapes if name != "image"]
        labelled = run_graph(self._interpreter, labels, {tap: arrays[tap] for tap in taps})
        labelled["image"] = arrays["image"]
        labelled["finite"] = labelled["finite"] & arrays["finite"]
        return self._batch(labelled, len(ws))

    def average_style(self) -> npt.NDArray[np.float32]:
        """w_avg, float32 [w_dim]: what the first layer gets at truncation_psi 0; see Engine.average_style."""
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
        for name, shape in self._shapes.items():
            if arrays[name].shape != (self.batch_size, *shape):
                raise EngineRunError(
                    f"{name} has shape {list(arrays[name].shape)}, expected {[self.batch_size, *shape]}; "
                    "build the bundle again",
                )
        keypoints = arrays.get("keypoints")
        return EngineBatch(
            image=arrays["image"][:num_rows],
            label=arrays["label"][:num_rows],
            uncertainty_map=arrays["uncertainty_map"][:num_rows],
            keypoints=None if keypoints is None else keypoints[:num_rows],
            finite=arrays["finite"][:num_rows],
        )


def _output_shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """Shape of one row of each output of the `model` graph."""
    frame = bundle.manifest.frame
    shapes: dict[str, tuple[int, ...]] = {
        "image": (frame.image_height, frame.image_width, 3),
        "label": (frame.label_height, frame.label_width),
        "uncertainty_map": (frame.label_height, frame.label_width),
        "finite": (),
    }
    if bundle.manifest.keypoints.names:
        shapes["keypoints"] = (len(bundle.manifest.keypoints.names), 4)
    return shapes


def _check_names(session: onnxruntime.InferenceSession, relative: str, expected: set[str]) -> None:
    names = {value.name for value in session.get_inputs()}
    if names != expected:
        raise EngineStartError(
            f"{relative!r} has the inputs {sorted(names)}, expected {sorted(expected)}; build the bundle again",
        )


def _check_outputs(session: onnxruntime.InferenceSession, relative: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = {value.name: value.type for value in session.get_outputs()}
    for name in shapes:
        if found.get(name) != _ONNX_TYPES[name]:
            raise EngineStartError(
                f"{relative!r} gives {name!r} as {found.get(name)}, expected {_ONNX_TYPES[name]}; "
                "build the bundle again",
            )
