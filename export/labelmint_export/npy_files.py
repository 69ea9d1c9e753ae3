"""Reading `.npy` files of numbers, by a header that is matched instead of evaluated.

numpy hands the header to Python's parser, which raises what it likes and takes memory as it likes.
"""

import math
import mmap
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000
"""numpy's own bound."""
MAX_DIMS = 8
"""Axes of an array."""

_DESCR = re.compile(r"'descr': *'([<>|=]?(?:b1|[iu][1248]|f[248]))'")
_ORDER = re.compile(r"'fortran_order': *(True|False)")
_SHAPE = re.compile(r"'shape': *\(((?:\d{1,18}L?, *)*(?:\d{1,18}L?)?)\)")  # L: of Python 2


def read_npy(path: Path) -> npt.NDArray[np.generic]:
    """Map a `.npy` file: a header that claims more than the file holds takes no memory.

    Args:
        path: The file; it must not change while the array is in use.

    Returns:
        bool, integers or floating-point numbers of any shape, read-only.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no `.npy` file, or holds something else than such numbers.
    """
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 2)
        if start[:2] == b"PK":
            raise ValueError("it holds several arrays (.npz), expected one .npy array")
        if start[: len(MAGIC)] != MAGIC or start[len(MAGIC) :] not in (b"\1\0", b"\2\0", b"\3\0"):
            raise ValueError(f"it begins with {start!r}, expected {MAGIC!r} and a version from 1 to 3")
        length = int.from_bytes(file.read(2 if start.endswith(b"\1\0") else 4), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header has {length} bytes, expected at most {MAX_HEADER_BYTES}")
        header = file.read(length).decode("utf-8")
        first = file.tell()
        dtype, shape, is_fortran = _parse_header(header)
        file.seek(0, 2)
        count = math.prod(shape)
        if count * dtype.itemsize > file.tell() - first:
            raise ValueError(f"it holds {file.tell() - first} bytes, expected those of {dtype} {list(shape)}")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    array: npt.NDArray[np.generic] = np.frombuffer(mapped, dtype, count, first) if count else np.empty(0, dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def _parse_header(header: str) -> tuple[np.dtype[np.generic], tuple[int, ...], bool]:
    """Take element type, shape and Fortran's order out of a header."""
    descr, order, shape = (pattern.search(header) for pattern in (_DESCR, _ORDER, _SHAPE))
    if descr is None or order is None or shape is None or not header.strip().endswith("}"):
        raise ValueError(
            f"its header is {header[:80]!r}, expected type, order and shape of booleans, integers or floating-point "
            "numbers"
        )
    sizes = tuple(int(size.strip(" L")) for size in shape[1].split(",") if size.strip())
    if len(sizes) > MAX_DIMS:
        raise ValueError(f"its array has {len(sizes)} axes, expected at most {MAX_DIMS}")
    return np.dtype(descr[1]), sizes, order[1] == "True"
