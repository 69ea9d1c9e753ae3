"""Worker processes: a failure of one becomes an error here, never a hang."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.errors import WorkerError
from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.worker import ROOT, Worker

TIMEOUT_S = 300.0


def test_worker_that_cannot_prepare_says_why(tmp_path: Path) -> None:
    worker = Worker(
        "benchmarks.contenders.engine", ["--bundle", str(tmp_path), "--engine", "onnxruntime"], timeout_s=TIMEOUT_S
    )
    with pytest.raises(WorkerError, match=r"manifest\.json is missing"), worker:
        pass


def test_worker_that_dies_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    worker = Worker("benchmarks.contenders.engine", ["--no-such-flag"], timeout_s=TIMEOUT_S)
    with pytest.raises(WorkerError, match="ended without an answer"), worker:
        pass
    assert "--bundle" in capfd.readouterr().err


def test_worker_that_is_late_is_an_error() -> None:
    worker = Worker("json.tool", timeout_s=0.001)  # waits for its standard input to end
    with pytest.raises(WorkerError, match="gave no answer"), worker:
        pass


def test_request_that_breaks_a_worker_is_an_error(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Worker(
        "benchmarks.contenders.engine", ["--bundle", str(tiny), "--engine", "onnxruntime"], timeout_s=TIMEOUT_S
    ) as worker:
        assert worker.description["model"] == "tiny"
        with pytest.raises(WorkerError, match="ended without an answer"):
            worker.ask({}, timeout_s=TIMEOUT_S)
    assert "KeyError" in capfd.readouterr().err


def test_server_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, timeout_s=TIMEOUT_S)
    with pytest.raises(WorkerError, match="ended with status 2"), server:
        pass


def test_server_ends_with_a_benchmark_that_is_killed(tiny: Path) -> None:
    benchmark = f"""
import sys
from pathlib import Path
from benchmarks.processes.server import ServerProcess
with ServerProcess(Path({str(tiny)!r}), timeout_s={TIMEOUT_S}) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", benchmark]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        server = psutil.Process(int(running.stdout.readline()))
        running.kill()
        try:
            server.wait(TIMEOUT_S)
        finally:
            if server.is_running():
                server.kill()


def test_peak_memory_grows_with_what_a_process_holds() -> None:
    before = peak_rss_bytes()
    held = bytearray(b"\1") * ((before or 0) + 2**28)
    after = peak_rss_bytes()
    assert before is not None
    assert after is not None
    assert after >= len(held), "more than ever before"
