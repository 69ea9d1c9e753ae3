"""Pictures on their way to the networks.

A GPU is through with a batch in the time that a processor takes to collect it from disk. So a set of which a GPU's
memory holds several moves there as a whole, in bytes, and batches are collected where they are used.

Legend: N images, H rows, W columns, r resolution.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.pictures import average_down, check_side, to_range

MEMORY_SHARE = 4
"""A set moves to the GPU if it takes no more than one of so many parts of what is free there."""
_CHUNK = 1_000
"""Pictures that move at a time: a set mapped from disk need not fit into the processor's memory."""


class Feed:
    """Gives batches of a set.

    Args:
        pictures: uint8 [N, H, W, 3]; H is a multiple of resolution.
        resolution: Side that the networks see.
        device: Where the networks are.
        resident: Whether the whole set moves there; None decides by the memory of a GPU.

    Raises:
        DatasetError: H is no multiple of resolution.
    """

    def __init__(
        self, pictures: npt.NDArray[np.uint8], resolution: int, device: torch.device, *, resident: bool | None = None
    ) -> None:
        check_side(pictures.shape[1], resolution)
        self._pictures = pictures
        self._resolution = resolution
        self._device = device
        if resident is None:
            resident = device.type == "cuda" and pictures.nbytes * MEMORY_SHARE <= torch.cuda.mem_get_info(device)[0]
        self._resident = _move(pictures, device) if resident else None

    def place(self, indices: Sequence[int]) -> torch.Tensor:
        """Bring indices to the device, without waiting for what it is computing: int64 [N]."""
        placed = torch.tensor(indices)
        if self._device.type == "cuda":
            placed = placed.pin_memory()
        return placed.to(self._device, non_blocking=True)

    def take(self, indices: Sequence[int], placed: torch.Tensor) -> torch.Tensor:
        """Give pictures, as `to_range` does.

        Args:
            indices: Which.
            placed: The same, from `place`.

        Returns:
            float32 [N, 3, r, r], [-1, 1], channels last.
        """
        if self._resident is None:
            return to_range(self._pictures[indices], self._resolution, self._device)
        return average_down(self._resident[placed], self._resolution)


def _move(pictures: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Copy chunk by chunk: uint8 [N, H, W, 3]."""
    moved = torch.empty(pictures.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(pictures), _CHUNK):
        moved[start : start + _CHUNK] = torch.from_numpy(np.array(pictures[start : start + _CHUNK]))
    return moved
