"""What the workers of a workload answer, and the files by which their labels are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class RunAnswer:
    """The time of one run, by its pictures.

    Attributes:
        total_ns: From latents to labels, of a picture.
        stages_ns: Parts of it.
    """

    total_ns: int
    stages_ns: Mapping[str, int]

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {"total_ns": self.total_ns, "stages_ns": dict(self.stages_ns)}


# Any: labels uint8 and divergence float, one line of pixels each.
Labels = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def save_labels(request: Mapping[str, Any], pictures: Sequence[Labels]) -> None:  # Any: a document of JSON
    """Write labels and divergences where the request wants them, if it does."""
    if request.get("labels"):
        label, divergence = (np.stack([picture[i].reshape(-1) for picture in pictures]) for i in (0, 1))
        np.savez(request["labels"], label=label, divergence=divergence.astype(np.float32))


def load_labels(path: Path) -> Labels:
    """Read what `save_labels` wrote: uint8 and float32 [N, P]."""
    with np.load(path, allow_pickle=False) as content:
        return content["label"], content["divergence"]
