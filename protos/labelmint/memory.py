"""What the C library does with freed memory, for processes through which megabytes of messages go.

glibc gives large freed blocks back to the system and takes fresh ones for the next message. The system then clears them
page by page, which costs about as much as copying the message does.
"""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # more is refused
_MOST_KEPT_BYTES = 2**31 - 1


def keep_freed_memory(num_bytes: int = 512 * 2**20) -> bool:
    """Let the C library keep freed memory for the next message, in this process and from now on.

    Args:
        num_bytes: How much it may keep, up to 2 GiB; more goes back to the system.

    Returns:
        Whether it does; False where the C library is not glibc, which may not need it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    kept = min(num_bytes, _MOST_KEPT_BYTES)
    return bool(
        library.mallopt(_M_TRIM_THRESHOLD, kept)
        and library.mallopt(_M_MMAP_THRESHOLD, min(kept, _LARGEST_MMAP_THRESHOLD))
    )
