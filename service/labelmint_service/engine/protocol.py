"""What an engine owes the scheduler.

N images, L num_ws, C classes of a conditional model, K keypoints, H x W the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

JsonValue: TypeAlias = str | int | float | bool | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentInputs:
    """Rows that enter at the mapping network.

    Attributes:
        z: float32 [N, z_dim].
        class_onehot: float32 [N, c_dim]; [N, 0] for unconditional models.
        truncation_psi: float32 [N].
    """

    z: npt.NDArray[np.float32]
    class_onehot: npt.NDArray[np.float32]
    truncation_psi: npt.NDArray[np.float32]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.z)


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleInputs:
    """Rows that enter at the synthesis network.

    Attributes:
        ws: float32 [N, L, w_dim], already truncated.
    """

    ws: npt.NDArray[np.float32]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.ws)


EngineInputs: TypeAlias = LatentInputs | StyleInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBatch:
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

    def run(
        self,
        z: npt.NDArray[np.float32],
        class_onehot: npt.NDArray[np.float32],
        truncation_psi: npt.NDArray[np.float32],
    ) -> EngineBatch:
        """Make and label the pictures of some latents.

        Args:
            z: float32 [N, z_dim], N in [1, batch_size].
            class_onehot: float32 [N, c_dim]; [N, 0] for unconditional models.
            truncation_psi: float32 [N].

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


def run_inputs(engine: Engine, inputs: EngineInputs) -> EngineBatch:
    """Run the entry of `engine` that the inputs are for.

    Raises:
        EngineRunError: The run failed.
    """
    if isinstance(inputs, LatentInputs):
        return engine.run(inputs.z, inputs.class_onehot, inputs.truncation_psi)
    return engine.run_styles(inputs.ws)
