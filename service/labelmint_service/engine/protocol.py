"""What an engine owes the scheduler.

N images, L num_ws, K keypoints, H x W the frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

JsonValue: TypeAlias = str | int | float | bool | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowArrays:
    """Arrays of as many rows, of any dtype, or None in the place of one."""

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(getattr(self, fields(self)[0].name))

    def rows(self, first: int, last: int) -> Self:
        """Rows first to last (exclusive), as views."""
        return self._make(lambda name: None if (array := getattr(self, name)) is None else array[first:last])

    def reversed_rows(self) -> Self:
        """The last row first, as copies."""
        return self._make(lambda name: None if (array := getattr(self, name)) is None else array[::-1].copy())

    def _make(self, array: Callable[[str], npt.NDArray[Any] | None]) -> Self:  # Any: of every dtype
        make: Callable[..., Self] = type(self)
        return make(**{field.name: array(field.name) for field in fields(self)})


_RowsT = TypeVar("_RowsT", bound=_RowArrays)


def join_rows(parts: Sequence[_RowsT]) -> _RowsT:
    """Stack the rows of parts of one kind, at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    assert all(type(part) is type(first) for part in parts), "a batch has one entry"

    def join(name: str) -> npt.NDArray[Any] | None:  # Any: of the field's dtype
        arrays = [array for part in parts if (array := getattr(part, name)) is not None]
        return np.concatenate(arrays) if arrays else None

    return first._make(join)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentInputs(_RowArrays):
    """Rows that enter at the mapping network.

    Attributes:
        z: float32 [N, z_dim].
        truncation_psi: float32 [N].
        class_indices: int64 [N], in [0, c_dim); None for unconditional models.
    """

    z: npt.NDArray[np.float32]
    truncation_psi: npt.NDArray[np.float32]
    class_indices: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleInputs(_RowArrays):
    """Rows that enter at the synthesis network.

    Attributes:
        ws: float32 [N, L, w_dim], already truncated.
    """

    ws: npt.NDArray[np.float32]


EngineInputs: TypeAlias = LatentInputs | StyleInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBatch(_RowArrays):
    """Labelled pictures, one row for each row of the inputs.

    Attributes:
        image: uint8 [N, H, W, 3], sRGB.
        label: uint8 [N, H, W], class ids.
        uncertainty_map: float16 [N, H, W], nats.
        keypoints: float32 [N, K, 4] (x, y, score, visibility); None if the model has none.
        finite: bool [N]; nothing of a row that is False may be used.
        scores: float32 [N]: what `labelmint.scores.image_score` gives for the map, where the engine knows it already.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    uncertainty_map: npt.NDArray[np.float16]
    keypoints: npt.NDArray[np.float32] | None
    finite: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32] | None = None

    def digests(self) -> tuple[bytes | None, ...]:
        """The sha256 of each row's pictures and keypoints; None for rows that are not finite."""
        arrays = (self.image, self.label, self.uncertainty_map, self.keypoints)
        return tuple(
            hashlib.sha256(b"".join(array[row].tobytes() for array in arrays if array is not None)).digest()
            if finite
            else None
            for row, finite in enumerate(self.finite)
        )


class Engine(Protocol):
    """Runs one bundle. Calls come from one thread at a time and may block it.

    Attributes:
        name: Name of the engine, for example "onnxruntime".
        batch_size: Most rows of one run. Fewer are padded to it, so that every run has the same shape.
        stages_ns: Time of the parts of the last run; empty if the engine does not tell them apart.
    """

    name: str
    batch_size: int
    stages_ns: dict[str, int]

    def describe(self) -> Mapping[str, JsonValue]:
        """Everything about the engine and this machine that the output bits depend on."""
        ...

    def run(self, inputs: LatentInputs) -> EngineBatch:
        """Make and label the pictures of some latents.

        Args:
            inputs: N rows, N in [1, batch_size].

        Returns:
            The batch of N rows. A row depends on the same row of the inputs alone.

        Raises:
            ValueError: An array has another dtype or shape.
            EngineRunError: The run failed.
        """
        ...

    def run_styles(self, ws: npt.NDArray[np.float32]) -> EngineBatch:
        """Make and label the pictures of some style vectors.

        Args:
            ws: float32 [N, num_ws, w_dim], already truncated, N in [1, batch_size].

        Returns:
            The batch of N rows.

        Raises:
            ValueError: The array has another dtype or shape.
            EngineRunError: The run failed.
        """
        ...

    def average_style(self) -> npt.NDArray[np.float32]:
        """The mean style w_avg, towards which truncation pulls: float32 [w_dim].

        Raises:
            EngineRunError: The run failed.
        """
        ...

    def resize(self, batch_size: int) -> bool:
        """Take another batch size, because memory ran out; whoever asks checks that the bits stay the same.

        Args:
            batch_size: At least 1.

        Returns:
            Whether the engine did; one with buffers of a fixed size does not.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; it must not be used afterwards."""
        ...
