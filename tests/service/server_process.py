"""`python -m labelmint_service` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from labelmint.v1 import service_pb2_grpc

EXIT_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A server that is ready.

    Attributes:
        process: It.
        address: host:port, as it announced it.
        ready_file: Where it was told to say that it is ready.
        log: File with its stderr.
        channel: To it; closed with it.
    """

    process: subprocess.Popen[str]
    address: str
    ready_file: Path
    log: Path
    channel: grpc.Channel

    def stub(self) -> service_pb2_grpc.LabelMintStub:
        return service_pb2_grpc.LabelMintStub(self.channel)  # type: ignore[no-untyped-call]  # generated

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns its status."""
        return self.process.wait(EXIT_TIMEOUT_S)


def serve_command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "labelmint_service", "--port", "0", "--metrics-port", "0", *flags]


@contextlib.contextmanager
def server_process(folder: Path, *flags: str, stdin: int = subprocess.DEVNULL) -> Iterator[ServerProcess]:
    """Starts a server and waits until it says that it is ready; what still runs at the end is killed.

    Args:
        folder: For its ready file and its log.
        *flags: Of labelmint-serve, besides ports and ready file.
        stdin: Descriptor of its standard input.
    """
    ready_file, log = folder / "ready.json", folder / "stderr.txt"
    command = serve_command("--ready-file", str(ready_file), *flags)
    with (
        log.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            announced = re.match(r"labelmint-serve ready at (\S+),", process.stdout.readline())
            assert announced is not None, log.read_text(encoding="utf-8")
            with grpc.insecure_channel(announced[1]) as channel:
                yield ServerProcess(
                    process=process, address=announced[1], ready_file=ready_file, log=log, channel=channel
                )
        finally:
            process.kill()


def wait_for_line(server: ServerProcess, *parts: str) -> None:
    """Wait until a line of the server's log holds all of these texts."""
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while not any(all(part in line for part in parts) for line in server.log.read_text(encoding="utf-8").splitlines()):
        assert time.monotonic() < deadline, f"the log has no line with {parts}"
        time.sleep(0.02)


def wait_for_files(process: psutil.Process, most: int) -> None:
    """Wait until a process has let go of all files and connections but so many."""
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while process.num_fds() > most:
        assert time.monotonic() < deadline, f"{process.num_fds()} descriptors are open, expected {most}"
        time.sleep(0.02)


def run_server(*flags: str) -> subprocess.CompletedProcess[str]:
    """Runs a server that is expected to end by itself."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.run(
        serve_command(*flags), capture_output=True, text=True, timeout=EXIT_TIMEOUT_S, check=False, env=environment
    )
