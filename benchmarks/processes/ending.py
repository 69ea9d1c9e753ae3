"""The end of a process that stops when its standard input ends."""

import contextlib
import subprocess
from typing import Any

_STOP_TIMEOUT_S = 60.0


def end_process(process: subprocess.Popen[Any]) -> None:  # Any: text or bytes
    """Close its standard input and wait; kill it if it does not end."""
    assert process.stdin is not None, "it was started with a pipe"
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
