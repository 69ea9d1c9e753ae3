"""Rows: the unit of work between sources, scheduler and streams. One row becomes one sample.

N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from labelmint_service.engine import EngineBatch, EngineInputs, LatentInputs


class Entry(Enum):
    """Where rows enter the engine; rows of one batch share it."""

    LATENTS = "latents"
    STYLES = "styles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows that a stream has handed out.

    Attributes:
        indices: Sample indices, ascending.
        load: Makes the latents; takes a while, so it runs in a worker thread.
    """

    indices: tuple[int, ...]
    load: Callable[[], EngineInputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Rows that came out of the engine, all finite.

    Attributes:
        indices: Sample indices, ascending.
        inputs: What went in.
        outputs: What came out.
        waited_ns: Time from when the stream was ready until they were handed out.
        queue_ns: Time from being handed out until the engine began.
        compute_ns: Time of the engine for the whole batch they were part of.
    """

    indices: tuple[int, ...]
    inputs: EngineInputs
    outputs: EngineBatch
    waited_ns: int
    queue_ns: int
    compute_ns: int

    @property
    def class_indices(self) -> npt.NDArray[np.int64] | None:
        """int64 [N]; None for unconditional models and explicit styles."""
        return self.inputs.class_indices if isinstance(self.inputs, LatentInputs) else None
