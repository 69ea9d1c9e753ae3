"""Arrays out of pickles: numpy's own form, and torch's tensors as windows on storages. Every bound is checked here."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from labelmint_export.checkpoints.fields import show
from labelmint_export.checkpoints.limits import ADVICE, MAX_DIMS, MAX_OVERLAPPING_BYTES, MAX_TENSOR_BYTES, Budget
from labelmint_export.checkpoints.records import Array
from labelmint_export.errors import CheckpointError

STORAGE_DTYPES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
"""torch's storage classes and the types of their elements."""

ARRAY_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
"""numpy's names of the element types that arrays may have."""


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A torch storage.

    Attributes:
        dtype: Element type, a value of `STORAGE_DTYPES`.
        num_elements: How many it has.
        data: [num_elements], read-only, bfloat16 as uint16; None while a legacy file is read for the first time.
    """

    dtype: str
    num_elements: int
    data: Array | None


class PendingArray:
    """A numpy array whose shape and bytes come later in the pickle."""


def refuse(problem: str) -> CheckpointError:
    """Make the error for an array that is not as it should be."""
    return CheckpointError(f"{problem}; {ADVICE}", field="tensor")


def get_itemsize(dtype: str) -> int:
    """Get the size of a storage's element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def make_storage(dtype: str, num_elements: int, view: memoryview, budget: Budget) -> Storage:
    """Make a storage of bytes.

    Args:
        dtype: Element type, a value of `STORAGE_DTYPES`.
        num_elements: How many there should be.
        view: Exactly their bytes.
        budget: Pays for a copy, which bytes at an odd address need, and for looking at those of bool.

    Raises:
        CheckpointError: There are fewer or more bytes.
    """
    if num_elements < 0 or num_elements * get_itemsize(dtype) != len(view):
        raise refuse(f"a storage has {len(view)} bytes, expected {num_elements} elements of {dtype}")
    data = view_elements(view, np.dtype("uint16" if dtype == "bfloat16" else dtype), budget)
    return Storage(dtype, num_elements, data)


def view_elements(view: memoryview | bytes, dtype: np.dtype[np.generic], budget: Budget) -> Array:
    """View bytes as a read-only [N] array; copies those that are not aligned.

    Raises:
        CheckpointError: Bytes of bool are neither 0 nor 1, or the budget is spent.
    """
    data = np.frombuffer(view, dtype)
    if dtype == np.bool_ and data.size:
        budget.spend_bytes(data.nbytes)  # the same bytes may be made arrays of again and again
        if int(data.view(np.uint8).max()) > 1:
            raise refuse("an array of bool has bytes that are neither 0 nor 1")
    if not data.flags.aligned:
        budget.spend_bytes(data.nbytes)
        data = data.copy()
    data.flags.writeable = False
    return data


def get_sizes(value: object, what: str) -> tuple[int, ...]:
    """Check a shape or strides: a short tuple of integers that are not negative.

    Raises:
        CheckpointError: It is something else.
    """
    if type(value) is not tuple or len(value) > MAX_DIMS:
        raise refuse(f"a tensor's {what} is not a tuple of at most {MAX_DIMS} integers")
    for size in value:
        if type(size) is not int or not 0 <= size <= MAX_TENSOR_BYTES:
            raise refuse(f"an entry of a tensor's {what} is not an integer from 0 to {MAX_TENSOR_BYTES}")
    return value


def rebuild_tensor(arguments: tuple[object, ...], budget: Budget) -> Array:
    """Stand in for `torch._utils._rebuild_tensor_v2`.

    Args:
        arguments: storage, offset, shape, strides (in elements), requires_grad, hooks and perhaps metadata.
        budget: Pays for the conversion of bfloat16.

    Returns:
        A read-only window on the storage, or float32 made of bfloat16.

    Raises:
        CheckpointError: The window reaches beyond the storage, or the arguments are others.
    """
    if len(arguments) not in {6, 7} or not isinstance(arguments[0], Storage):
        raise refuse(f"a tensor is made of {len(arguments)} values, expected a storage and 5 or 6 more")
    if len(arguments) == 7 and arguments[6]:
        raise refuse("a tensor has metadata (conjugate or negative views), expected none")
    storage, offset = arguments[0], arguments[1]
    shape, strides = get_sizes(arguments[2], "shape"), get_sizes(arguments[3], "strides")
    if type(offset) is not int or not 0 <= offset <= storage.num_elements:
        raise refuse(f"a tensor's offset is not an integer from 0 to {storage.num_elements}, the size of its storage")
    if len(shape) != len(strides):
        raise refuse(f"a tensor has {len(shape)} dimensions and {len(strides)} strides")
    count, itemsize = math.prod(shape), get_itemsize(storage.dtype)
    reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
    if count and reach > storage.num_elements:
        raise refuse(f"a tensor of shape {shape} reaches element {reach} of a storage of {storage.num_elements}")
    if count > storage.num_elements and count * itemsize > MAX_OVERLAPPING_BYTES:
        raise refuse(f"a tensor of shape {shape} repeats the {storage.num_elements} elements of its storage")
    if storage.data is None:
        return np.empty(0, np.float32)
    return _view_tensor(storage.data, storage.dtype == "bfloat16", offset, shape, strides, budget)


def _view_tensor(
    data: Array, is_bfloat16: bool, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], budget: Budget
) -> Array:
    if math.prod(shape):
        byte_strides = tuple(stride * data.itemsize for stride in strides)
        array: Array = np.ndarray(shape, data.dtype, data, offset * data.itemsize, byte_strides)
    else:
        array = np.empty(shape, data.dtype)
    if is_bfloat16:  # the upper half of a float32
        budget.spend_bytes(6 * array.size)
        wide = array.astype(np.uint32)
        array = np.left_shift(wide, np.uint32(16), out=wide).view(np.float32)
    array.flags.writeable = False
    return array


def rebuild_parameter(arguments: tuple[object, ...], budget: Budget) -> Array:
    """Stand in for `torch._utils._rebuild_parameter`: the tensor itself.

    Raises:
        CheckpointError: The arguments are not tensor, requires_grad, hooks.
    """
    del budget
    if len(arguments) != 3 or not isinstance(arguments[0], np.ndarray):
        raise refuse(f"a parameter is made of {len(arguments)} values, expected a tensor and two more")
    return arguments[0]


# --- numpy ------------------------------------------------------------------------------------------------------------


def make_dtype(arguments: tuple[object, ...], budget: Budget) -> np.dtype[np.generic]:
    """Stand in for `numpy.dtype`.

    Raises:
        CheckpointError: It is not the name of a boolean, integer or real type.
    """
    del budget
    name = arguments[0] if len(arguments) == 3 else None
    if type(name) is not str or name not in ARRAY_DTYPES:
        raise refuse(f"an array has dtype {show(name)}, expected one of {', '.join(ARRAY_DTYPES)}")
    return np.dtype(name)


def build_dtype(dtype: object, state: object, budget: Budget) -> object:
    """Check the state of a dtype: version, byte order, then no fields and no subtype.

    Raises:
        CheckpointError: The type is structured or big-endian.
    """
    del budget
    if type(state) is not tuple or len(state) not in {8, 9} or any(part is not None for part in state[2:5]):
        raise refuse("an array has a structured dtype, expected a plain one")
    if type(state[1]) is not str or state[1] not in ("<", "|", "="):
        raise refuse(
            f"an array has byte order {show(state[1])}, expected '<': write the file on a little-endian machine"
        )
    return dtype


def make_pending_array(arguments: tuple[object, ...], budget: Budget) -> PendingArray:
    """Stand in for `numpy.core.multiarray._reconstruct`, which makes an empty array to be given a state."""
    del arguments, budget  # the class, an empty shape and a type code, all overruled by the state
    return PendingArray()


def build_array(pending: object, state: object, budget: Budget) -> Array:
    """Make an array of numpy's state: version, shape, dtype, whether in Fortran's order, bytes.

    Raises:
        CheckpointError: The bytes are not as many as the shape and the dtype say, or the state is another.
    """
    del pending
    if type(state) is not tuple or len(state) != 5 or not isinstance(state[2], np.dtype):
        raise refuse("an array's state is not version, shape, dtype, order and bytes")
    if type(state[3]) is not bool:
        raise refuse(f"an array's order is {show(state[3])}, expected True for Fortran's and False for C's")
    return _make_array(state[4], state[2], state[1], "F" if state[3] else "C", budget)


def make_array(arguments: tuple[object, ...], budget: Budget) -> Array:
    """Stand in for `numpy.core.numeric._frombuffer`, by which protocol 5 writes arrays whose elements lie in one piece.

    Args:
        arguments: Bytes, dtype, shape and order: "C", "F", or "K" and the axes in the order in which they lie.
        budget: Pays for it.

    Raises:
        CheckpointError: The bytes are not as many as the shape and the dtype say, or the arguments are others.
    """
    if len(arguments) not in {4, 5} or not isinstance(arguments[1], np.dtype):
        raise refuse("an array's description is not bytes, dtype, shape and order")
    order = arguments[3]
    if len(arguments) == 4 and type(order) is str and order in ("C", "F"):
        return _make_array(arguments[0], arguments[1], arguments[2], "F" if order == "F" else "C", budget)
    if len(arguments) != 5 or type(order) is not str or order != "K":
        raise refuse(f"an array's order is {show(order)}, expected 'C', 'F', or 'K' with the order of its axes")
    array = _make_array(arguments[0], arguments[1], arguments[2], "C", budget)
    axes = get_sizes(arguments[4], "order of axes")
    if sorted(axes) != list(range(array.ndim)):
        raise refuse(f"an array's axes are in the order {axes}, expected each of its {array.ndim} axes once")
    return array.transpose(axes)


def _make_array(
    data: object, dtype: np.dtype[np.generic], sizes: object, order: Literal["C", "F"], budget: Budget
) -> Array:
    shape, raw = get_sizes(sizes, "shape"), get_raw(data, budget)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise refuse(f"an array of shape {shape} and dtype {dtype} has {len(raw)} bytes")
    array = view_elements(raw, dtype, budget).reshape(shape, order=order)
    array.flags.writeable = False
    return array


def get_raw(value: object, budget: Budget) -> bytes | memoryview:
    """Take an array's bytes, which a Python 2 pickle holds as a `str`.

    Raises:
        CheckpointError: They are something else, such as a list of objects.
    """
    if isinstance(value, str):
        budget.spend_bytes(len(value))
        return value.encode("latin-1")
    if not isinstance(value, bytes | memoryview):
        raise refuse(f"an array holds {type(value).__name__}, expected bytes: arrays of objects are not read")
    return value


def make_scalar(arguments: tuple[object, ...], budget: Budget) -> bool | int | float:
    """Stand in for `numpy.core.multiarray.scalar`: the nearest Python scalar.

    Raises:
        CheckpointError: The arguments are not a dtype and the bytes of one element.
    """
    if len(arguments) != 2 or not isinstance(arguments[0], np.dtype):
        raise refuse(f"a scalar is made of {len(arguments)} values, expected a dtype and bytes")
    raw = get_raw(arguments[1], budget)
    if len(raw) != arguments[0].itemsize:
        raise refuse(f"a scalar of dtype {arguments[0]} has {len(raw)} bytes")
    value: bool | int | float = view_elements(raw, arguments[0], budget)[0].item()
    return value
