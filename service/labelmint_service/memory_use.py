"""How much memory this process holds, for limits of models."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory of the process that is in RAM at present, pages of mapped files included.

    Elsewhere than on Linux the most that it ever was: growth is then what went beyond that.
    """
    if _STATM.exists():
        return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release_freed_memory() -> None:
    """Give memory that nothing uses back to the system, so that what is resident is what is used.

    glibc keeps freed memory for later; it would hide what a load takes. With another C library nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
