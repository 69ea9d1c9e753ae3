"""The command `labelmint` but for `generate`, against the real service."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from labelmint_client import Client, ServerUnavailableError
from labelmint_client.cli import main
from tests.clients.command_line import Run
from tests.clients.conftest import QUICK
from tests.clients.datasets import contents


def test_models_lists_what_is_served(run: Run) -> None:
    assert run("models") == 0
    header, line = run.out.splitlines()
    assert header.split() == ["name", "version", "digest", "numerics_id", "description"]
    assert line.split()[:2] == ["tiny", "1"]
    assert run("models", "--json") == 0
    [model] = json.loads(run.out)
    assert len(model["digest"]) == 64


def test_show_describes_a_model(run: Run) -> None:
    assert run("show", "tiny") == 0
    for part in ("background", "left_end", "CC0-1.0", "16 x 16 pixels"):
        assert part in run.out
    assert run("show", "tiny", "--json") == 0
    assert json.loads(run.out)["manifest"]["schema_version"] == 1


def test_health_is_the_status_of_a_probe(run: Run, closed_address: str) -> None:
    assert run("health") == 0
    assert run.out == "the server serves\n"
    assert run("health", "tiny") == 0
    assert run("health", "nobody") == 1
    assert "nobody does not serve" in run.err
    assert run("health", "--timeout-s", "0") == 2
    assert run("health", "\udcff") == 1
    assert "cannot be sent" in run.err
    run.address = closed_address
    assert run("health", "--timeout-s", "5") == 1
    assert "the server does not serve" in run.err
    assert closed_address in run.err


@contextlib.contextmanager
def answering(check: Callable[[bytes], bytes]) -> Iterator[str]:
    """The address of a server that answers questions for health so."""
    method = grpc.unary_unary_rpc_method_handler(lambda request, context: check(request))
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_health_waits_until_the_server_serves(run: Run) -> None:
    answers = [b"\x08\x02", b"", b"\x08\x01"]  # NOT_SERVING, UNKNOWN, SERVING
    with answering(lambda request: answers.pop(0)) as run.address:
        assert run("health", "--wait-s", "60") == 0
    assert run.out == "the server serves\n"
    assert answers == []


@pytest.mark.parametrize("name", ["m" * 127, "m" * 128, f"{'m' * 64}@{'v' * 64}", "ä" * 100, "m" * 20_000], ids=len)
def test_health_asks_for_the_whole_name(run: Run, name: str) -> None:
    asked: list[bytes] = []

    def check(request: bytes) -> bytes:
        asked.append(request)
        return b"\x08\x01"

    with answering(check) as run.address:
        assert run("health", name) == 0
    assert [health_pb2.HealthCheckRequest.FromString(request).service for request in asked] == [name]


def test_health_asks_again_before_it_gives_up(run: Run, closed_address: str) -> None:
    run.address = closed_address
    before = time.monotonic()
    assert run("health", "--wait-s", "0.6") == 1
    assert 0.3 < time.monotonic() - before < 30
    assert "the server does not serve" in run.err
    assert re.search(r"\(asked for \d+\.\d s\)", run.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out"),
        (["--out", "x"], "--seed"),
        (["--out", "x", "--seed", "1"], "--count"),
        (["--out", "x", "--seed", "-1", "--count", "1"], "expected a whole number from 0 to 18446744073709551615"),
        (["--out", "x", "--seed", str(2**64), "--count", "1"], "expected a whole number"),
        (["--out", "x", "--seed", "9" * 5000, "--count", "1"], "expected a whole number"),
        (["--out", "x", "--seed", "one", "--count", "1"], "expected a whole number"),
        (["--out", "x", "--seed", "1", "--count", "0"], "from 1 to"),
        (["--out", "x", "--seed", "1", "--count", "1", "--format", "voc"], "voc"),
        (["--out", "x", "--seed", "1", "--count", "1", "--min-class-area", "hair"], "CLASS=FRACTION"),
        (["--out", "x", "--seed", "1", "--count", "1", "--min-class-area", "hair=2"], "CLASS=FRACTION"),
        (["--out", "x", "--seed", "1", "--count", "1", "--resume", "--overwrite"], "not allowed with"),
        (["--out", "x", "--seed", "1", "--count", "1", "--colour"], "--colour"),
    ],
)
def test_misspelt_command_line_ends_with_status_2(run: Run, arguments: list[str], message: str) -> None:
    assert run("generate", *arguments) == 2
    assert message in run.err


def test_no_server_is_a_clear_error(closed_address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(closed_address, capsys)
    assert run("generate", "--seed", 1, "--count", 1, "--out", tmp_path / "set") == 1
    assert run.err.startswith(f"labelmint: no answer from {closed_address} after 3 attempts"), run.err
    assert "Traceback" not in run.err
    assert not (tmp_path / "set").exists()


def test_demo_streams_a_data_set_and_stops_its_server(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    command = ["demo", "--bundle", str(bundle), "--out", str(out), "--count", "20"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert re.search(r"20 labelled samples in .* samples/s", text)
    assert text.endswith("server stopped cleanly\n")
    names = {
        "images",
        "masks",
        "keypoints.json",
        "annotations.json",
        "LICENCE.txt",
        "contact_sheet.png",
        "dataset.json",
    }
    assert {path.name for path in out.iterdir()} == names
    address = re.search(r"at (\S+:\d+)", text)
    assert address is not None
    with Client(address[1], retry=QUICK) as client, pytest.raises(ServerUnavailableError):
        client.list_models()
    before = contents(out)
    assert main(command) == 0
    assert contents(out) == before


def test_demo_whose_server_cannot_start_fails_clearly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--bundle", str(tmp_path / "nothing"), "--out", str(tmp_path / "demo")]) == 1
    assert "the server ended with status 2 before it was ready" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("command", [[], ["generate"]], ids=["alone", "in_a_command"])
def test_version_is_that_of_the_distribution(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version", *command])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"labelmint {version('labelmint')}\n"


def test_command_runs_as_a_module(address: str) -> None:
    command = [sys.executable, "-m", "labelmint_client", "models", "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "tiny" in done.stdout
