"""The fused engine: mapping and synthesis as graphs, the interpreter as a compiled kernel.

N images (rows asked for), B batch size of the profile, L num_ws, K keypoints, H x W the frame.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnxruntime

from labelmint.bundle import Bundle
from labelmint.graphs import TensorSpec, input_specs, output_specs, stack_name
from labelmint.v1 import bundle_pb2
from labelmint_service.engine.fused.bundles import LabelFrame, read_weights
from labelmint_service.engine.fused.kernel import LEAST_AGREEMENT, InterpreterKernel, KernelOutput
from labelmint_service.engine.fused.native import EXACT, Variant, find_variant, library_sha256, variants
from labelmint_service.engine.fused.peaks import find_peaks
from labelmint_service.engine.fused.weights import InterpreterWeights
from labelmint_service.engine.graph_runs import (
    GraphArrays,
    check_shapes,
    mean_style,
    pad_latents,
    pad_rows,
    run_graph,
    trial_latents,
)
from labelmint_service.engine.processor import describe_processor, num_usable
from labelmint_service.engine.protocol import EngineBatch, JsonValue, LatentInputs
from labelmint_service.engine.sessions import check_signature, describe_options, find_provider, open_session
from labelmint_service.errors import EngineRunError, EngineStartError

TAP_DTYPES = ("float32", "float16")


class FusedEngine:
    """Runs a bundle's mapping and synthesis in onnxruntime on the processor, and its interpreter in a kernel.

    Args:
        bundle: Verified bundle with tables of the interpreter.
        kernel: Form of the kernel; "auto" takes the fastest whose labels agree with float32.

    Raises:
        EngineStartError: The bundle has no tables that fit it, this machine no kernel, or a graph does not load, fit or
            run.
    """

    name = "fused"

    def __init__(self, bundle: Bundle, *, kernel: str = "auto") -> None:
        manifest = bundle.manifest
        self._manifest = manifest
        self.batch_size = manifest.runtime.batch_size
        provider, options = find_provider("cpu"), manifest.runtime.onnxruntime
        self._options = options
        weights = read_weights(bundle)
        dtype = _tap_dtype(manifest)
        self._stacks = {
            r: TensorSpec(stack_name(r), dtype, (table.shape[1], r, r)) for r, table in weights.levels.items()
        }
        painted = (spec for spec in output_specs(manifest) if spec.name in {"image", "finite"})
        self._painted = (*painted, *self._stacks.values())
        self._mapping = open_session(bundle, manifest.graphs.mapping, options, provider)
        latents = {spec.name for spec in input_specs(manifest)}
        check_signature(self._mapping, manifest.graphs.mapping, latents, {"ws": "float32"})
        self._synthesis = open_session(bundle, manifest.graphs.synthesis, options, provider)
        dtypes = {spec.name: spec.dtype for spec in self._painted}
        check_signature(self._synthesis, manifest.graphs.synthesis, {"ws"}, dtypes)
        self._threads = options.intra_op_num_threads or num_usable() or 1
        self._frame = LabelFrame(manifest, weights.size)
        # The highest point of a heatmap may lie outside the frame, so keypoints need all rows.
        self._rows = range(weights.size) if manifest.keypoints.names else self._frame.rows
        self._variant, self._kernel = self._choose(weights, kernel)
        self.stages_ns: dict[str, int] = {}
        """Time of the parts of the last run."""

    def describe(self) -> Mapping[str, JsonValue]:
        """Everything about the engine and this machine that the output bits depend on."""
        return {
            "engine": self.name,
            "kernel": self._variant.name,
            "kernel_sha256": library_sha256(),
            "version": onnxruntime.__version__,
            "build": onnxruntime.get_build_info().strip(),
            "batch_size": self.batch_size,
            "session_options": describe_options(self._options),
            "numpy": np.__version__,
            "processor": describe_processor(),
        }

    def run(self, inputs: LatentInputs) -> EngineBatch:
        """Make and label the pictures of some latents; see Engine.run."""
        feed = pad_latents(self._manifest, inputs, self.batch_size)
        began = time.perf_counter_ns()
        ws = run_graph(self._mapping, ["ws"], feed)["ws"]
        mapped = time.perf_counter_ns() - began
        batch = self._paint_and_label(ws, inputs.num_rows)
        self.stages_ns = {"mapping": mapped, **self.stages_ns}
        return batch

    def run_styles(self, ws: npt.NDArray[np.float32]) -> EngineBatch:
        """Make and label the pictures of some style vectors; see Engine.run_styles."""
        backbone = self._manifest.backbone
        return self._paint_and_label(pad_rows(ws, "ws", (backbone.num_ws, backbone.w_dim), self.batch_size), len(ws))

    def average_style(self) -> npt.NDArray[np.float32]:
        """w_avg, float32 [w_dim]; see Engine.average_style."""
        return mean_style(self._mapping, self._manifest)

    def resize(self, batch_size: int) -> bool:
        """Pad runs to another number of rows; see Engine.resize."""
        self.batch_size = batch_size
        return True

    def close(self) -> None:
        """Free the sessions and end the threads."""
        self._kernel.close()
        del self._mapping, self._synthesis

    def _paint_and_label(self, ws: npt.NDArray[np.float32], num_rows: int) -> EngineBatch:
        """Styles float32 [B, L, w_dim], of which the first rows are wanted, to a batch."""
        times = [time.perf_counter_ns()]
        arrays = self._paint(ws)
        times.append(time.perf_counter_ns())
        output = self._kernel.run({r: arrays[spec.name][:num_rows] for r, spec in self._stacks.items()}, self._rows)
        times.append(time.perf_counter_ns())
        batch = self._deliver(output, arrays["image"][:num_rows], arrays["finite"][:num_rows])
        times.append(time.perf_counter_ns())
        parts = zip(("synthesis", "interpreter", "keypoints"), itertools.pairwise(times), strict=True)
        self.stages_ns = {name: end - start for name, (start, end) in parts}
        return batch

    def _paint(self, ws: npt.NDArray[np.float32]) -> GraphArrays:
        """Pictures, whether they are finite, and taps, which the kernel reads in float32, of styles [B, L, w_dim]."""
        arrays = run_graph(self._synthesis, [spec.name for spec in self._painted], {"ws": ws})
        check_shapes(arrays, self._painted, len(ws))
        return arrays | {s.name: arrays[s.name].astype(np.float32, copy=False) for s in self._stacks.values()}

    def _deliver(
        self, output: KernelOutput, image: npt.NDArray[np.uint8], painted: npt.NDArray[np.bool_]
    ) -> EngineBatch:
        """Cut the frame out of what the kernel gave, and find the keypoints in it."""
        return EngineBatch(
            image=image,
            label=np.ascontiguousarray(self._frame.cut(output.label)),
            uncertainty_map=self._frame.cut(output.uncertainty).astype(np.float16),
            keypoints=self._frame.place_peaks(find_peaks(output.heatmaps)) if self._manifest.keypoints.names else None,
            finite=output.finite & painted,
        )

    def _choose(self, weights: InterpreterWeights, kernel: str) -> tuple[Variant, InterpreterKernel]:
        """The kernel that was asked for, or the fastest that labels one batch as float32 does."""
        if kernel != "auto":
            variant = find_variant(kernel)
            return variant, InterpreterKernel(weights, variant, self._threads)
        exact = find_variant(EXACT)
        with contextlib.ExitStack() as made:
            reference = InterpreterKernel(weights, exact, self._threads)
            made.callback(reference.close)
            for variant in variants():
                if variant.bfloat16:
                    fast = InterpreterKernel(weights, variant, self._threads)
                    made.callback(fast.close)
                    if self._agreement(reference, fast) >= LEAST_AGREEMENT:
                        made.pop_all()
                        reference.close()
                        return variant, fast
                    fast.close()
            made.pop_all()
            return exact, reference

    def _agreement(self, reference: InterpreterKernel, fast: InterpreterKernel) -> float:
        """Share of equal labels on one batch of pictures.

        Raises:
            EngineStartError: The graphs do not paint them.
        """
        feed = pad_latents(self._manifest, trial_latents(self._manifest, self.batch_size), self.batch_size)
        try:
            arrays = self._paint(run_graph(self._mapping, ["ws"], feed)["ws"])
        except EngineRunError as error:
            raise EngineStartError(
                f"the first run of bundle {self._manifest.name!r} failed: {error}; run `labelmint-export verify` on it"
            ) from error
        stacks = {r: arrays[spec.name] for r, spec in self._stacks.items()}
        equal = reference.run(stacks, self._rows).label == fast.run(stacks, self._rows).label
        return float(equal[:, self._rows.start : self._rows.stop].mean())


def _tap_dtype(manifest: bundle_pb2.Manifest) -> str:
    """What the synthesis graph of a bundle gives its taps in.

    Raises:
        EngineStartError: It is none that this engine reads.
    """
    if manifest.precision not in TAP_DTYPES:
        raise EngineStartError(
            f"precision of bundle {manifest.name!r} is {manifest.precision!r}, expected {' or '.join(TAP_DTYPES)}; "
            "build it again in one of these, or choose engine 'onnxruntime'",
            field="precision",
        )
    return manifest.precision
