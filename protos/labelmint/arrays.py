"""Arrays as bytes: the only place where a `Tensor` message becomes a numpy array or the reverse.

Data is row-major and little-endian on the wire, whatever the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.errors import ArrayError
from labelmint.v1 import service_pb2

__all__ = ["DTYPES", "array_from_tensor", "tensor_from_array"]

# Any in this module: dtype and rank are known at run time only.
DTYPES: Mapping[service_pb2.DType, np.dtype[Any]] = MappingProxyType(
    {
        service_pb2.DTYPE_UINT8: np.dtype("<u1"),
        service_pb2.DTYPE_FLOAT16: np.dtype("<f2"),
        service_pb2.DTYPE_FLOAT32: np.dtype("<f4"),
    }
)
"""numpy's dtype of each `DType` that travels."""

_MAX_DIMENSIONS = 8
_MAX_BYTES = 2**40


def tensor_from_array(array: npt.NDArray[Any]) -> service_pb2.Tensor:
    """Pack an array for the wire.

    Args:
        array: uint8, float16 or float32, any shape, memory order and byte order.

    Returns:
        The tensor; its data is a copy.

    Raises:
        ArrayError: The dtype does not travel.
    """
    for number, dtype in DTYPES.items():
        if dtype == array.dtype.newbyteorder("<"):
            data = array.astype(dtype, order="C", copy=False).tobytes()
            return service_pb2.Tensor(dtype=number, shape=array.shape, data=data)
    raise ArrayError(
        f"array has dtype {array.dtype}, expected one of {_dtype_names()}; convert it with .astype first",
        field="dtype",
    )


def array_from_tensor(
    tensor: service_pb2.Tensor, *, field: str, data: bytes | memoryview | None = None
) -> npt.NDArray[Any]:
    """Read a tensor without copying what protobuf hands out.

    Args:
        tensor: A message from the wire; nothing in it is trusted.
        field: Name of the request or reply field that holds the tensor, for error messages.
        data: The tensor's data, where it was taken out of the message before; see `labelmint.batches`.

    Returns:
        A read-only array of the stated dtype and shape.

    Raises:
        ArrayError: The dtype is unknown, or shape and number of bytes contradict each other.
    """
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise ArrayError(
            f"{field}.dtype is {tensor.dtype}, expected one of {_dtype_names()}; set dtype to the type of the data",
            field=f"{field}.dtype",
        )
    shape = tuple(tensor.shape)
    if len(shape) > _MAX_DIMENSIONS:  # before their product, which may have more digits than Python prints
        raise ArrayError(
            f"{field}.shape has {len(shape)} dimensions, expected at most {_MAX_DIMENSIONS}; send another array",
            field=f"{field}.shape",
        )
    # Zeros count as ones here, so that an empty array cannot carry a shape that numpy is unable to hold.
    extent = math.prod(max(size, 1) for size in shape) * dtype.itemsize
    if extent > _MAX_BYTES:
        raise ArrayError(
            f"{field}.shape spans {extent} bytes, expected at most {_MAX_BYTES}; send less at a time",
            field=f"{field}.shape",
        )
    if data is None:
        data = tensor.data  # each read of a bytes field copies it
    num_bytes = math.prod(shape) * dtype.itemsize
    if len(data) != num_bytes:
        raise ArrayError(
            f"{field}.data has {len(data)} bytes, expected {num_bytes} for shape {list(shape)} of {dtype.name}; "
            "send the whole row-major array",
            field=f"{field}.data",
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _dtype_names() -> str:
    return ", ".join(f"{service_pb2.DType.Name(number)} ({dtype.name})" for number, dtype in DTYPES.items())
