"""Open files: each connection is one, and a process that may open no more accepts nobody, not even a probe."""

from __future__ import annotations

import sys

from labelmint_service.errors import SettingsError

RESERVED = 256
"""What the server opens besides callers' connections: bundles, logs, libraries, shared memory, the two below."""
ADMIN_CONNECTIONS = 32
"""Connections to the admin service at a time."""
METRICS_CONNECTIONS = 32
"""Connections to the metrics at a time."""


def allow_open_files(max_connections: int) -> None:
    """Raise the limit of this process so that it never ends the accepting of connections before `max_connections` does.

    Args:
        max_connections: Connections at a time.

    Raises:
        SettingsError: The system does not let this process have so many.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - exists on Unix only

    needed = max_connections + RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError) as error:
        raise SettingsError(
            f"max_connections is {max_connections}, which takes {needed} open files, but this process may have {hard}; "
            "lower max_connections, or raise the limit (`ulimit -Hn`, LimitNOFILE of systemd)",
            field="max_connections",
        ) from error
