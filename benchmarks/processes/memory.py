"""Peak memory of a process."""

import sys
from pathlib import Path


def peak_rss_bytes(pid: int | None = None) -> int | None:
    """Most memory that a process has held so far, bytes.

    Linux's VmHWM is taken where there is one: unlike ru_maxrss, it starts anew when a process begins another program,
    so it does not count the parent that started it.

    Args:
        pid: A running process; None for this one.

    Returns:
        Resident bytes; None where the system does not tell.
    """
    status = Path("/proc", "self" if pid is None else str(pid), "status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if pid is not None or sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - exists on Unix only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
