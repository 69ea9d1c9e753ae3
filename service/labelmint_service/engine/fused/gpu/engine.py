"""The fused engine on a GPU: taps stay on the device from the graph that makes them to the kernels that read them.

A call is cut into chunks of the bundle's batch. Each chunk is computed in order on one stream; its results lie in a
slot of their own, from where another stream copies them to the host while the next chunk is computed.

N images (rows asked for), B batch of the bundle's profile, L num_ws, K keypoints, H x W the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from labelmint.bundle import Bundle
from labelmint.graphs import TensorSpec, input_specs, output_specs, stack_name
from labelmint.scores import NUM_BINS, score_counts
from labelmint_service.engine.fused.bundles import LabelFrame, read_weights
from labelmint_service.engine.fused.gpu.binaries import KernelArchive, read_archive
from labelmint_service.engine.fused.gpu.device import Bytes, Device, DeviceArray, download, place_array
from labelmint_service.engine.fused.gpu.graphs import DeviceGraph
from labelmint_service.engine.fused.gpu.interpreter import GpuInterpreter
from labelmint_service.engine.fused.gpu.plan import make_plan
from labelmint_service.engine.fused.gpu.proof import check_labels
from labelmint_service.engine.fused.peaks import refine_peaks
from labelmint_service.engine.graph_runs import average_latents, pad_latents, pad_rows, trial_latents
from labelmint_service.engine.processor import describe_processor
from labelmint_service.engine.protocol import EngineBatch, JsonValue, LatentInputs
from labelmint_service.engine.sessions import describe_options, find_provider
from labelmint_service.errors import EngineRunError, EngineStartError

CHUNKS = 4
"""Batches of the bundle's profile that one call may compute."""
_SLOTS = 2
_PEAK_USED = 5
_STAGES = ("mapping", "synthesis", "interpreter", "copy")

Rows = npt.NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class _Slot:
    """One chunk on its way.

    Attributes:
        number: Of the interpreter's places for results.
        inputs: Name -> pinned memory for what goes in.
        results: Name -> where a result lies on the device.
        pinned: Name -> where it goes on the host.
        events: When it began, was mapped, painted, labelled and copied.
    """

    number: int
    inputs: Mapping[str, Bytes]
    results: Mapping[str, DeviceArray]
    pinned: Mapping[str, Bytes]
    events: tuple[int, ...]

    def array(self, name: str) -> npt.NDArray[Any]:  # Any: of the result's dtype
        """A result on the host, [B, ...]; the next chunk of the slot overwrites it."""
        result = self.results[name]
        return self.pinned[name].view(result.dtype).reshape(result.shape)


class GpuEngine:
    """Runs a bundle's mapping and synthesis in onnxruntime on a device, and its interpreter in kernels there.

    Args:
        bundle: Verified bundle with tables of the interpreter.
        device: What it runs on; closed with the engine.
        archive: Binaries of the kernels; by default those that the package brings along.
        algorithms: How cuDNN computes.

    Raises:
        EngineStartError: The bundle has no tables, the device no binaries or not enough memory, a graph does not load,
            or labels are not those of the processor.
    """

    name = "fused"

    def __init__(
        self, bundle: Bundle, device: Device, archive: KernelArchive | None = None, *, algorithms: str = "repeatable"
    ) -> None:
        manifest = bundle.manifest
        self._manifest, self._device = manifest, device
        self._archive = archive or read_archive()
        self._rows = manifest.runtime.batch_size
        self.batch_size = CHUNKS * self._rows
        device.make_current()
        weights = read_weights(bundle)
        self._frame = LabelFrame(manifest, weights.size)
        self._size, self._has_keypoints = weights.size, weights.regressors is not None
        self._provider = find_provider(device.place.provider, algorithms=algorithms)
        self._mapping, self._synthesis = (
            DeviceGraph(bundle, relative, self._provider, device.place, self._rows)
            for relative in (manifest.graphs.mapping, manifest.graphs.synthesis)
        )
        taps = {self._synthesis.output_dtypes.get(stack_name(r), "missing") for r in weights.levels}
        try:
            tap_dtype = taps.pop() if len(taps) == 1 else f"{sorted(taps)}"
            plan = make_plan(weights, self._rows, self._frame, tap_dtype=tap_dtype)
            self._interpreter = GpuInterpreter(device, plan, self._archive, _SLOTS)
        except ValueError as error:
            raise EngineStartError(
                f"the GPU kernels cannot run bundle {manifest.name!r}: {error}; choose engine 'onnxruntime'",
                field="engine",
            ) from error
        self._inputs, self._painted = self._bind_graphs()
        self._slots = [self._make_slot(number) for number in range(_SLOTS)]
        self.stages_ns: dict[str, int] = {}
        """Time of the parts of the last call; those of one chunk overlap with those of the next."""
        self._warm_up()
        # The taps are those of the last chunk.
        label = self._slots[-1].array("label_frame")[0]
        check_labels(weights, self._frame, self._interpreter.inputs, label, device)

    def describe(self) -> Mapping[str, JsonValue]:
        """Everything about the engine and this machine that the output bits depend on."""
        return {
            "engine": self.name,
            "kernel": f"gpu-{self._device.half.name}",
            "kernel_sha256": self._archive.sha256,
            "binaries": dict(self._interpreter.binaries),
            "version": onnxruntime.__version__,
            "build": onnxruntime.get_build_info().strip(),
            "cuda": str(getattr(onnxruntime, "cuda_version", "")),
            "provider": self._provider.onnxruntime_name,
            "provider_options": dict(self._provider.options),
            "recorded_graphs": [self._mapping.is_recorded, self._synthesis.is_recorded],
            "batch_size": self._rows,
            "session_options": describe_options(self._manifest.runtime.onnxruntime),
            "numpy": np.__version__,
            "device": dict(self._device.describe()),
            "processor": describe_processor(),
        }

    def run(self, inputs: LatentInputs) -> EngineBatch:
        """Make and label the pictures of some latents; see Engine.run."""
        return self._run(pad_latents(self._manifest, inputs, self.batch_size), inputs.num_rows)

    def run_styles(self, ws: Rows) -> EngineBatch:
        """Make and label the pictures of some style vectors; see Engine.run_styles."""
        backbone = self._manifest.backbone
        return self._run({"ws": pad_rows(ws, "ws", (backbone.num_ws, backbone.w_dim), self.batch_size)}, len(ws))

    def average_style(self) -> Rows:
        """w_avg, float32 [w_dim]; see Engine.average_style."""
        inputs = average_latents(self._manifest, self._rows)
        self._device.make_current()
        self._feed(self._slots[0], pad_latents(self._manifest, inputs, self._rows))
        self._mapping.run()
        style: Rows = download(self._device, self._inputs["ws"])[0, 0]
        if not np.isfinite(style).all():
            raise EngineRunError("the mapping graph gave a w_avg that is not finite; build the bundle again")
        return style

    def device_bytes(self) -> int:
        """Memory of the device in use, also by others."""
        return self._device.allocated_bytes()

    def device_total_bytes(self) -> int:
        """All memory of the device."""
        return self._device.total_bytes()

    def resize(self, batch_size: int) -> bool:  # noqa: ARG002 - of every engine
        """Keep the size: the buffers and recorded graphs are made for it; see Engine.resize."""
        return False

    def close(self) -> None:
        """Free the graphs, then the device's memory, which they point at."""
        self._device.make_current()
        del self._mapping, self._synthesis
        self._device.close()

    def _bind_graphs(self) -> tuple[dict[str, DeviceArray], dict[str, DeviceArray]]:
        """Allocate what the graphs read and write; returns inputs by name (`ws` too), and image and finite."""
        manifest, backbone = self._manifest, self._manifest.backbone

        def place(*specs: TensorSpec) -> dict[str, DeviceArray]:
            return {spec.name: place_array(self._device, (self._rows, *spec.shape), spec.dtype) for spec in specs}

        latents = place(*input_specs(manifest))
        styles = place(TensorSpec("ws", "float32", (backbone.num_ws, backbone.w_dim)))
        painted = place(*(spec for spec in output_specs(manifest) if spec.name in {"image", "finite"}))
        self._mapping.bind(latents, styles)
        self._synthesis.bind(styles, {**painted, **self._interpreter.inputs})
        return {**latents, **styles}, painted

    def _make_slot(self, number: int) -> _Slot:
        device = self._device
        results = dict(self._interpreter.results(number))
        results |= {name: place_array(device, array.shape, array.dtype) for name, array in self._painted.items()}
        return _Slot(
            number=number,
            inputs={name: device.allocate_pinned(array.num_bytes) for name, array in self._inputs.items()},
            results=results,
            pinned={name: device.allocate_pinned(array.num_bytes) for name, array in results.items()},
            events=tuple(device.make_event() for _ in range(len(_STAGES) + 1)),
        )

    def _warm_up(self) -> None:
        """Run both slots once, so that libraries choose and record what they run before the first request."""
        try:
            batch = self.run(trial_latents(self._manifest, _SLOTS * self._rows))
        except EngineRunError as error:
            raise EngineStartError(
                f"the first run of bundle {self._manifest.name!r} failed: {error}; choose engine 'onnxruntime'",
                field="engine",
            ) from error
        if not batch.finite.all():
            raise EngineStartError(
                f"the first run of bundle {self._manifest.name!r} gave values that are not finite; choose engine "
                "'onnxruntime'",
                field="engine",
            )

    def _run(self, feed: Mapping[str, Rows], num_rows: int) -> EngineBatch:
        """Rows [CHUNKS * B, ...], of which the first are wanted, to a batch."""
        self._device.make_current()
        batch = self._empty_batch(num_rows)
        self.stages_ns = dict.fromkeys(_STAGES, 0)
        waiting: tuple[_Slot, int] | None = None
        for number, first in enumerate(range(0, num_rows, self._rows)):
            slot = self._slots[number % _SLOTS]
            self._submit(slot, {name: rows[first : first + self._rows] for name, rows in feed.items()})
            if waiting is not None:
                self._collect(*waiting, batch)
            waiting = (slot, first)
        assert waiting is not None, "there is at least one row"
        self._collect(*waiting, batch)
        return batch

    def _submit(self, slot: _Slot, feed: Mapping[str, Rows]) -> None:
        """Ask the device for a chunk; the slot's last one has been collected."""
        device, (began, mapped, painted, labelled, copied) = self._device, slot.events
        device.record(began, device.compute)
        self._feed(slot, feed)
        if "ws" not in feed:
            self._mapping.run()
        device.record(mapped, device.compute)
        self._synthesis.run()
        for name, array in self._painted.items():
            device.copy_within(array.address, slot.results[name].address, array.num_bytes)
        device.record(painted, device.compute)
        self._interpreter.run(slot.number)
        device.record(labelled, device.compute)
        device.let_wait(device.copies, labelled)
        for name, result in slot.results.items():
            device.copy_out(result.address, slot.pinned[name])
        device.record(copied, device.copies)

    def _feed(self, slot: _Slot, feed: Mapping[str, Rows]) -> None:
        for name, rows in feed.items():
            slot.inputs[name].view(np.float32)[:] = rows.reshape(-1)
            self._device.copy_in(slot.inputs[name], self._inputs[name].address)

    def _collect(self, slot: _Slot, first: int, batch: EngineBatch) -> None:
        """Wait for a chunk and put its rows into the batch from row `first` on."""
        self._device.wait(slot.events[-1])
        rows = slice(first, min(first + self._rows, len(batch.image)))
        count = rows.stop - first
        for name, target in (
            ("image", batch.image),
            ("label_frame", batch.label),
            ("map_frame", batch.uncertainty_map),
        ):
            target[rows] = slot.array(name)[:count]
        counts = slot.array("counts")[:count]
        finite = slot.array("finite")[:count] & (counts[:, NUM_BINS] == 0)
        if batch.keypoints is not None:
            values = slot.array("values")[:count]
            finite &= (values[..., _PEAK_USED] == 0).all(axis=1)
            peaks = refine_peaks(slot.array("places")[:count], values[..., :_PEAK_USED], self._size, self._size)
            batch.keypoints[rows] = self._frame.place_peaks(peaks)
        batch.finite[rows] = finite
        assert batch.scores is not None, "this engine scores"
        batch.scores[rows] = score_counts(counts[:, :NUM_BINS], self._frame.height * self._frame.width)
        for number, stage in enumerate(_STAGES):
            self.stages_ns[stage] += self._device.elapsed_ns(*slot.events[number : number + 2])

    def _empty_batch(self, num_rows: int) -> EngineBatch:
        frame, names = self._manifest.frame, self._manifest.keypoints.names
        return EngineBatch(
            image=np.empty((num_rows, frame.image_height, frame.image_width, 3), np.uint8),
            label=np.empty((num_rows, self._frame.height, self._frame.width), np.uint8),
            uncertainty_map=np.empty((num_rows, self._frame.height, self._frame.width), np.float16),
            keypoints=np.empty((num_rows, len(names), 4), np.float32) if self._has_keypoints else None,
            finite=np.empty(num_rows, np.bool_),
            scores=np.empty(num_rows, np.float32),
        )
