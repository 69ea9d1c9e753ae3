"""Runs of one onnxruntime session: padded rows in, arrays by name out.

N images (rows asked for), B batch size of the profile (rows computed), L num_ws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from labelmint.graphs import TensorSpec
from labelmint.v1 import bundle_pb2
from labelmint_service.engine.protocol import LatentInputs
from labelmint_service.errors import EngineMemoryError, EngineRunError

# Any: the arrays of a run have the dtypes of the graph's outputs.
GraphArrays: TypeAlias = dict[str, npt.NDArray[Any]]

_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "out of memory", "Available memory of")
"""What onnxruntime says when memory ran out, on the processor and on CUDA; it has no error of its own for that."""


def pad_rows(
    rows: npt.NDArray[np.float32], name: str, tail: tuple[int, ...], batch_size: int
) -> npt.NDArray[np.float32]:
    """Repeat the first row until there are as many as a run computes: [N, *tail] -> [B, *tail].

    Raises:
        ValueError: The rows have another dtype or shape, or there are none or too many.
    """
    num_rows = len(rows)
    if rows.dtype != np.float32 or rows.shape[1:] != tail or not 1 <= num_rows <= batch_size:
        expected = ", ".join([f"1..{batch_size}", *map(str, tail)])
        raise ValueError(f"{name} is {rows.dtype} {list(rows.shape)}, expected float32 [{expected}]; split or cast it")
    missing = batch_size - num_rows
    return np.concatenate([rows, np.repeat(rows[:1], missing, axis=0)]) if missing else np.ascontiguousarray(rows)


def pad_latents(
    manifest: bundle_pb2.Manifest, inputs: LatentInputs, batch_size: int
) -> dict[str, npt.NDArray[np.float32]]:
    """What `mapping` and `model` take, by name, padded as `pad_rows` does.

    Raises:
        ValueError: An array has another dtype or shape, or classes are missing.
    """
    backbone, classes = manifest.backbone, inputs.class_indices
    feed = {
        "z": pad_rows(inputs.z, "z", (backbone.z_dim,), batch_size),
        "truncation_psi": pad_rows(inputs.truncation_psi, "truncation_psi", (), batch_size),
    }
    if backbone.c_dim:
        if classes is None or classes.shape != (inputs.num_rows,):
            got = None if classes is None else list(classes.shape)
            raise ValueError(f"class_indices are {got}, expected int64 [{inputs.num_rows}]; choose one for each row")
        onehot = np.zeros((inputs.num_rows, backbone.c_dim), dtype=np.float32)
        onehot[np.arange(inputs.num_rows), classes] = 1.0
        feed["c"] = pad_rows(onehot, "c", (backbone.c_dim,), batch_size)
    return feed


def trial_latents(manifest: bundle_pb2.Manifest, num_rows: int) -> LatentInputs:
    """Latents such as callers send, always the same ones, for an engine to try itself on."""
    backbone = manifest.backbone
    return LatentInputs(
        z=np.random.default_rng(0).standard_normal((num_rows, backbone.z_dim)).astype(np.float32),
        truncation_psi=np.full(num_rows, manifest.truncation.default_psi, dtype=np.float32),
        class_indices=np.arange(num_rows) % backbone.c_dim if backbone.c_dim else None,
    )


def average_latents(manifest: bundle_pb2.Manifest, num_rows: int) -> LatentInputs:
    """Latents that the mapping network takes to w_avg in the first layer: those of truncation_psi 0."""
    backbone = manifest.backbone
    return LatentInputs(
        z=np.zeros((num_rows, backbone.z_dim), dtype=np.float32),
        truncation_psi=np.zeros(num_rows, dtype=np.float32),
        class_indices=np.zeros(num_rows, dtype=np.int64) if backbone.c_dim else None,
    )


def run_graph(
    session: onnxruntime.InferenceSession,
    outputs: list[str],
    feed: Mapping[str, npt.NDArray[np.float32]],
) -> GraphArrays:
    """Run a graph.

    Raises:
        EngineRunError: The run failed; EngineMemoryError, if memory ran out.
    """
    try:
        return dict(zip(outputs, session.run(outputs, dict(feed)), strict=True))
    except Exception as error:  # onnxruntime's errors share no base class
        if isinstance(error, MemoryError) or any(phrase in str(error) for phrase in _OUT_OF_MEMORY):
            raise EngineMemoryError("memory ran out in onnxruntime") from error
        raise EngineRunError(f"onnxruntime failed with {type(error).__name__}") from error


def check_shapes(arrays: Mapping[str, npt.NDArray[Any]], specs: Iterable[TensorSpec], batch_size: int) -> None:
    """Check that a run gave arrays of the shapes that the manifest states.

    Raises:
        EngineRunError: It did not.
    """
    for spec in specs:
        shape, expected = arrays[spec.name].shape, (batch_size, *spec.shape)
        if shape != expected:
            raise EngineRunError(
                f"{spec.name} has shape {list(shape)}, expected {list(expected)}; build the bundle again",
            )


def mean_style(mapping: onnxruntime.InferenceSession, manifest: bundle_pb2.Manifest) -> npt.NDArray[np.float32]:
    """w_avg, float32 [w_dim].

    Raises:
        EngineRunError: The run failed, or the graph does not fit the manifest.
    """
    backbone, batch_size = manifest.backbone, manifest.runtime.batch_size
    feed = pad_latents(manifest, average_latents(manifest, batch_size), batch_size)
    ws = run_graph(mapping, ["ws"], feed)["ws"]  # [B, L, w_dim]
    expected = (batch_size, backbone.num_ws, backbone.w_dim)
    if ws.shape != expected or ws.dtype != np.float32 or not np.isfinite(ws[0, 0]).all():
        raise EngineRunError(
            f"the mapping graph gave ws {ws.dtype} {list(ws.shape)}, expected finite float32 {list(expected)}; "
            "build the bundle again",
        )
    return np.array(ws[0, 0])
