"""How much memory this process holds, for limits of models."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory of the process that is in RAM at present, pages of mapped files included.

    On macOS the most that it ever was: growth is then what went beyond that. On Windows 0: nothing is measured there.
    """
    if _STATM.exists():
        return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    if sys.platform == "win32":
        return 0
    import resource  # noqa: PLC0415 - Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release_freed_memory() -> None:
    """Give memory that nothing uses back to the system, so that what is resident is what is used.

    glibc keeps freed memory for later; it would hide what a load takes. With another C library nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
