"""A server of one's own for the length of a command, in a process of its own."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from labelmint_client._errors import ServerUnavailableError

_POLL_S = 0.05


class LocalServer:
    """`labelmint-serve` on a free port of the loopback interface.

    Args:
        flags: Flags of labelmint-serve besides port and ready file.
        start_timeout_s: How long it may take to start, seconds.
        stop_timeout_s: How long it may take to stop, seconds.
    """

    def __init__(self, flags: Sequence[str], *, start_timeout_s: float, stop_timeout_s: float) -> None:
        self._flags = flags
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="labelmint-")

    def start(self) -> str:
        """Start it and wait until it is ready.

        Returns:
            Its address.

        Raises:
            ServerUnavailableError: It ended, or did not become ready in time.
        """
        ready_file = Path(self._folder.name) / "ready.json"
        command = [sys.executable, "-m", "labelmint_service", "--port", "0", "--no-metrics"]
        command += ["--log-level", "warning", "--ready-file", str(ready_file), *self._flags]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + self._start_timeout_s
        while not ready_file.exists():
            try:
                status = self._process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                raise ServerUnavailableError(
                    f"the server was not ready after {self._start_timeout_s:g} s; see its messages above"
                ) from None
            raise ServerUnavailableError(
                f"the server ended with status {status} before it was ready; see its message above "
                "(it needs: pip install 'labelmint[service,cpu]')"
            )
        address: str = json.loads(ready_file.read_bytes())["address"]
        return address

    def stop(self) -> int:
        """Tell it to stop and wait for it.

        Returns:
            Its exit status: 0 if it stopped cleanly.
        """
        status = 0
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            try:
                status = self._process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
        self._folder.cleanup()
        return status
