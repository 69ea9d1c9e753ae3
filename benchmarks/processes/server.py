"""The server, in a process of its own."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.errors import WorkerError
from benchmarks.processes.ending import end_process
from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import ROOT

_POLL_S = 0.05


class ServerProcess:
    """`labelmint-serve` on a free port of the loopback interface, for the length of a with block.

    Args:
        bundle: What it serves.
        engine: Name of the engine that runs it.
        timeout_s: How long it may take until it is ready, seconds.
        flags: More of labelmint-serve.

    Attributes:
        address: host:port, once entered.
    """

    def __init__(
        self, bundle: Path, *, engine: str = "onnxruntime", timeout_s: float, flags: Sequence[str] = ()
    ) -> None:
        self._bundle = bundle
        self._flags = flags
        self._engine = engine
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            WorkerError: It ended, or was not ready in time.
        """
        with tempfile.TemporaryDirectory(prefix="labelmint-bench-") as folder:
            ready_file = Path(folder) / "ready.json"
            command = [sys.executable, "-m", "benchmarks.processes.serving", "--port", "0", "--no-metrics"]
            command += [
                "--log-level",
                "warning",
                "--engine",
                self._engine,
                "--bundle",
                str(self._bundle.resolve()),
                "--ready-file",
                str(ready_file),
                *self._flags,
            ]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            try:
                self.address = self._wait_until_ready(self._process, ready_file)
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """Of the process, once entered."""
        assert self._process is not None, "enter the server first"
        return self._process.pid

    def exit_status(self) -> int | None:
        """Status with which it ended; None as long as it runs."""
        return None if self._process is None else self._process.poll()

    def peak_rss_bytes(self) -> int | None:
        """Most memory it has held so far; None where the system does not tell."""
        return None if self._process is None else peak_rss_bytes(self._process.pid)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], ready_file: Path) -> str:
        deadline = time.monotonic() + self._timeout_s
        while not ready_file.exists():
            try:
                status = process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                raise WorkerError(f"the server was not ready after {self._timeout_s:g} s") from None
            raise WorkerError(f"the server ended with status {status} before it was ready; see its message above")
        address: str = json.loads(ready_file.read_bytes())["address"]
        return address

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            end_process(process)
