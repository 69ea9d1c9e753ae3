"""Rows: the unit of work between sources, scheduler and streams. One row becomes one sample.

N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from labelmint_service.engine import EngineBatch, EngineInputs, LatentInputs, StyleInputs


class Entry(Enum):
    """Where rows enter the engine; rows of one batch share it."""

    LATENTS = "latents"
    STYLES = "styles"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRows:
    """Rows with everything the engine needs.

    Attributes:
        inputs: What goes into the engine.
        class_indices: int64 [N]; None for unconditional models and explicit styles.
    """

    inputs: EngineInputs
    class_indices: npt.NDArray[np.int64] | None

    def part(self, first: int, last: int) -> LoadedRows:
        """Rows first to last (exclusive)."""
        classes = self.class_indices
        return LoadedRows(
            inputs=slice_inputs(self.inputs, first, last),
            class_indices=None if classes is None else classes[first:last],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows that a stream has handed out.

    Attributes:
        indices: Sample indices, ascending.
        load: Makes the latents; takes a while, so it runs in a worker thread.
    """

    indices: tuple[int, ...]
    load: Callable[[], LoadedRows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Rows that came out of the engine, all finite.

    Attributes:
        indices: Sample indices, ascending.
        loaded: What went in.
        outputs: What came out.
        waited_ns: Time from when the stream was ready until they were handed out.
        queue_ns: Time from being handed out until the engine began.
        compute_ns: Time of the engine for the whole batch they were part of.
    """

    indices: tuple[int, ...]
    loaded: LoadedRows
    outputs: EngineBatch
    waited_ns: int
    queue_ns: int
    compute_ns: int


def slice_inputs(inputs: EngineInputs, first: int, last: int) -> EngineInputs:
    """Rows first to last (exclusive) of engine inputs, as views."""
    if isinstance(inputs, LatentInputs):
        return LatentInputs(
            z=inputs.z[first:last],
            class_onehot=inputs.class_onehot[first:last],
            truncation_psi=inputs.truncation_psi[first:last],
        )
    return StyleInputs(ws=inputs.ws[first:last])


def join_inputs(parts: list[EngineInputs]) -> EngineInputs:
    """Stack the rows of several inputs of one entry."""
    if len(parts) == 1:
        return parts[0]
    latents = [part for part in parts if isinstance(part, LatentInputs)]
    if latents:
        assert len(latents) == len(parts), "a batch has one entry"
        return LatentInputs(
            z=np.concatenate([part.z for part in latents]),
            class_onehot=np.concatenate([part.class_onehot for part in latents]),
            truncation_psi=np.concatenate([part.truncation_psi for part in latents]),
        )
    return StyleInputs(ws=np.concatenate([part.ws for part in parts if isinstance(part, StyleInputs)]))


def slice_outputs(outputs: EngineBatch, first: int, last: int) -> EngineBatch:
    """Rows first to last (exclusive) of engine outputs, as views."""
    keypoints = outputs.keypoints
    return EngineBatch(
        image=outputs.image[first:last],
        label=outputs.label[first:last],
        uncertainty_map=outputs.uncertainty_map[first:last],
        keypoints=None if keypoints is None else keypoints[first:last],
        finite=outputs.finite[first:last],
        scores=None if outputs.scores is None else outputs.scores[first:last],
    )
