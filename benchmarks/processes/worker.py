"""Worker processes that answer requests: one JSON document a line on their standard input and output.

A worker's module calls `answer_requests` under `if __name__ == "__main__":`; the benchmark starts it as `Worker`.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.errors import WorkerError
from benchmarks.processes.ending import end_process
from benchmarks.reporting.files import Document
from labelmint.errors import LabelmintError

ROOT = Path(__file__).resolve().parents[2]
"""Of the repository: workers start here, so that they import this very package."""

Answer = Callable[[Document], Mapping[str, object]]


class Worker:
    """A Python process that answers requests, for the length of a with block.

    Args:
        module: Run as `python -m`.
        arguments: Its command line.
        timeout_s: How long it may take until it is ready, seconds.
        python: Interpreter; by default this one.
    """

    def __init__(
        self, module: str, arguments: Sequence[str] = (), *, timeout_s: float, python: str = sys.executable
    ) -> None:
        self._module = module
        self._python = python
        self._arguments = list(arguments)
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.description: Document = {}

    def __enter__(self) -> Self:
        """Start it and wait until it has said what it is, which is then in `description`.

        Raises:
            WorkerError: It ended, failed or was not ready in time.
        """
        self._process = subprocess.Popen(
            [self._python, "-m", self._module, *self._arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        try:
            self.description = self._receive(self._timeout_s)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, request: Mapping[str, object], *, timeout_s: float) -> Document:
        """Send a request and wait for its answer.

        Args:
            request: What JSON can carry.
            timeout_s: How long the answer may take, seconds.

        Raises:
            WorkerError: The process ended, failed or did not answer in time.
        """
        assert self._process is not None, "enter the worker first"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError(f"{self._module} has ended; see its message above") from error
        return self._receive(timeout_s)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._lines.put(line)
        self._lines.put("")

    def _receive(self, timeout_s: float) -> Document:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise WorkerError(
                f"{self._module} gave no answer for {timeout_s:g} s; is this machine overloaded?"
            ) from None
        if not line:
            raise WorkerError(f"{self._module} ended without an answer; see its message above")
        answer: Document = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self._module}: {answer['error']}")
        return answer

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            end_process(process)


def answer_requests(prepare: Callable[[], tuple[Mapping[str, object], Answer]]) -> None:
    """Be a worker: prepare, then answer requests until standard input ends.

    Whatever libraries print goes to standard error.

    Args:
        prepare: Gives the description of this worker, and what answers a request. A LabelmintError of either becomes
            the answer; any other ends the process.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def send(document: Mapping[str, object]) -> None:
            out.write(json.dumps(document) + "\n")
            out.flush()

        try:
            description, answer = prepare()
        except LabelmintError as error:
            send({"error": str(error)})
            return
        send(description)
        for line in sys.stdin:
            try:
                send(answer(json.loads(line)))
            except LabelmintError as error:
                send({"error": str(error)})
