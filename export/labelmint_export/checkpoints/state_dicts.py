"""State dicts of numpy arrays, array by array: every error names the array, what came and what was expected.

Shapes are compared before any memory is taken.
"""

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.errors import CheckpointError

StateDict = Mapping[str, npt.NDArray[np.generic]]


class StateDictReader:
    """Checks a state dict array by array, and knows what it is called and what to advise, so that errors can tell.

    Args:
        tensors: The state dict.
        advice: What to do if an array does not fit.
        label: In front of every name, for state dicts that are one of many.
    """

    def __init__(self, tensors: StateDict, advice: str, label: str = "") -> None:
        self.tensors = tensors
        self.advice = advice
        self.label = label

    def refuse(self, key: str, got: str, expected: str) -> NoReturn:
        """Raise the error that names an array."""
        key = self.label + key
        raise CheckpointError(f"{key} {got}, expected {expected}; {self.advice}", field=key)

    def array(self, key: str, expected: str) -> npt.NDArray[np.generic]:
        """An array of floating-point numbers that must be there."""
        array: object = self.tensors.get(key)  # files hold what they like
        if array is None:
            self.refuse(key, "is missing", expected)
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            got = f"holds {array.dtype}" if isinstance(array, np.ndarray) else f"is a {type(array).__name__}"
            self.refuse(key, got, "an array of floating-point numbers")
        return array

    def shape(self, key: str, ndim: int) -> tuple[int, ...]:
        """Shape of an array that must be there."""
        shape = self.array(key, f"an array of {ndim} axes").shape
        if len(shape) != ndim or 0 in shape:
            self.refuse(key, f"has shape {list(shape)}", f"{ndim} axes that are not empty")
        return shape

    def check(self, key: str, shapes: Sequence[tuple[int, ...]]) -> None:
        """Check that an array is there, has one of some shapes and is finite."""
        expected = f"shape {' or '.join(str(list(shape)) for shape in shapes)}"
        array = self.array(key, expected)
        if array.shape not in shapes:
            self.refuse(key, f"has shape {list(array.shape)}", expected)
        with np.errstate(over="ignore"):
            if not np.isfinite(array.astype(np.float32)).all():
                self.refuse(key, "holds values that are not finite in float32", "finite ones")

    def tensor(self, key: str, shape: Sequence[int]) -> torch.Tensor:
        """float32 copy of an array that was checked, in another shape of as many elements."""
        return torch.from_numpy(np.array(self.tensors[key], np.float32, order="C").reshape(tuple(shape)))
