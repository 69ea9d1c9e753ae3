"""The server as a process: it says when it is ready, stops when told, and says in a line why it cannot start."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from importlib import metadata
from pathlib import Path

import grpc
import psutil
import pytest

from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint.v1.service_pb2 import OutputOptions
from tests.certificates import Authority
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, collect, describe_failure, make_request
from tests.service.server_process import EXIT_TIMEOUT_S, run_server, serve_command, server_process

ALL = OutputOptions(fields=EVERY_FIELD)


def test_ready_file_names_address_metrics_and_models(bundles: dict[str, Path], tmp_path: Path) -> None:
    with server_process(tmp_path, "--bundle", str(bundles["tiny"])) as server:
        ready = json.loads(server.ready_file.read_bytes())
        models = server.stub().ListModels(service_pb2.ListModelsRequest(), timeout=TIMEOUT_S).models

    assert ready["address"] == server.address
    assert ready["metrics"].startswith("http://127.0.0.1:")
    assert ready["models"] == {model.name: model.numerics_id for model in models}


def test_no_metrics_leaves_them_out_of_the_ready_file(bundles: dict[str, Path], tmp_path: Path) -> None:
    with server_process(tmp_path, "--bundle", str(bundles["tiny"]), "--no-metrics") as server:
        assert json.loads(server.ready_file.read_bytes())["metrics"] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_after_a_stream_stops_the_server_with_status_0(
    bundles: dict[str, Path], tmp_path: Path, number: signal.Signals
) -> None:
    with server_process(tmp_path, "--bundle", str(bundles["tiny"])) as server:
        assert collect(server.stub().Generate(make_request(), timeout=TIMEOUT_S)).indices == [0, 1, 2, 3, 4]
        server.signal(number)
        status = server.wait()

    assert status == 0, server.log.read_text(encoding="utf-8")
    assert not server.ready_file.exists()
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def test_endless_stream_is_ended_by_sigterm_and_goes_on_elsewhere_bit_for_bit(
    bundles: dict[str, Path], tmp_path: Path, stub: service_pb2_grpc.LabelMintStub
) -> None:
    endless = make_request(max_accepted=None, endless=True, output=ALL)
    batches: list[service_pb2.SampleBatch] = []
    with server_process(tmp_path, "--bundle", str(bundles["tiny"])) as server:
        call = server.stub().Generate(endless, timeout=TIMEOUT_S)
        batches += [next(call), next(call)]
        server.signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            batches.extend(call)
        status = server.wait()
    failure = describe_failure(caught.value)
    begun = collect(batches)
    next_index = len(begun.indices)
    request = make_request(start_index=next_index, numerics_id=batches[0].numerics_id, max_accepted=9, output=ALL)
    rest = collect(stub.Generate(request, timeout=TIMEOUT_S))
    whole = collect(stub.Generate(make_request(max_accepted=next_index + 9, output=ALL), timeout=TIMEOUT_S))

    assert (failure.code, status) == ("UNAVAILABLE", 0)
    assert failure.detail is not None
    assert failure.detail.next_index == next_index
    assert begun.indices + rest.indices == whole.indices
    for index in whole.indices:
        assert (begun if index < next_index else rest).row(index) == whole.row(index)


def assert_clear_failure(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Status 2, nothing announced, and below the log one line that says why."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("labelmint-serve: ")
    assert message in last


def test_missing_bundle_is_a_clear_failure(tmp_path: Path) -> None:
    assert_clear_failure(run_server("--bundle", str(tmp_path / "none")), str(tmp_path / "none"))


def test_altered_bundle_is_a_clear_failure(bundles: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(bundles["tiny"], tmp_path / "tiny")
    weights = bytearray((tmp_path / "tiny" / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "tiny" / "weights.bin").write_bytes(weights)

    assert_clear_failure(run_server("--bundle", str(tmp_path / "tiny")), "weights.bin")


@pytest.mark.parametrize("flag", ["--port", "--metrics-port"])
def test_port_that_is_taken_is_a_clear_failure(bundles: dict[str, Path], flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_server("--bundle", str(bundles["tiny"]), flag, str(taken.getsockname()[1]))

    assert_clear_failure(done, flag)
    assert flag != "--port" or "(Address already in use)" in done.stderr


def test_version_is_that_of_the_installation() -> None:
    done = run_server("--version")

    assert (done.returncode, done.stdout) == (0, f"labelmint {metadata.version('labelmint')}\n")


def test_ready_file_in_a_missing_folder_is_a_clear_failure(bundles: dict[str, Path], tmp_path: Path) -> None:
    ready_file = tmp_path / "none" / "ready.json"
    done = run_server("--bundle", str(bundles["tiny"]), "--ready-file", str(ready_file))

    assert_clear_failure(done, f"ready file {ready_file} cannot be written")
    assert "event=server.stopped" in done.stderr


def test_ready_file_that_is_a_folder_is_a_clear_failure(bundles: dict[str, Path], tmp_path: Path) -> None:
    done = run_server("--bundle", str(bundles["tiny"]), "--ready-file", str(tmp_path))

    assert_clear_failure(done, f"ready file {tmp_path} cannot be replaced")


LOADING = """
    import signal, sys
    from labelmint_service import cli as command

    def load(settings):
        print("loading", flush=True)
        sys.stdin.read()

    command.load_models = load
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background of a shell
    sys.exit(command.main(["--bundle", "none"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_bundles_are_loading_is_a_clean_exit(number: signal.Signals) -> None:
    command = [sys.executable, "-c", textwrap.dedent(LOADING)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "loading\n"
            process.send_signal(number)
            status = process.wait(EXIT_TIMEOUT_S)
            text = process.stderr.read()
        finally:
            process.kill()

    assert (status, text) == (0, "labelmint-serve: stopped before it was ready\n")


IMPORTING = """
    import signal, sys

    class Slow:
        def find_spec(self, name, path, target=None):
            if name == "labelmint_service.cli":
                print("importing", flush=True)
                sys.stdin.read()

    sys.meta_path.insert(0, Slow())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as it is to the first process of a container
    from labelmint_service.__main__ import main
    sys.exit(main())
"""


def test_signal_during_the_imports_of_a_container_is_a_clean_exit() -> None:
    command = [sys.executable, "-c", textwrap.dedent(IMPORTING)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGTERM)
            status = process.wait(EXIT_TIMEOUT_S)
            _, text = process.communicate()
        finally:
            process.kill()

    assert (status, text) == (0, "labelmint-serve: stopped before it was ready\n")


HANGING = """
    import ctypes, signal, sys
    from labelmint_service import cli as command

    def load(settings):
        print("loading", flush=True)
        ctypes.CDLL(None).sleep(600)  # a library that does not return

    command.load_models = load
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(command.main(sys.argv[1:]))
"""


def test_signal_ends_a_server_whose_library_does_not_return() -> None:
    command = [sys.executable, "-c", textwrap.dedent(HANGING)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "loading\n"
            process.send_signal(signal.SIGTERM)
            _, text = process.communicate(timeout=EXIT_TIMEOUT_S)
        finally:
            process.kill()
    assert (process.returncode, text) == (0, "labelmint-serve: stopped before it was ready\n")


def test_loading_that_takes_too_long_is_a_clear_failure() -> None:
    command = [sys.executable, "-c", textwrap.dedent(HANGING), "--load-timeout-s", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=EXIT_TIMEOUT_S, check=False)
    assert done.returncode == 2
    assert "not loaded and warm after 0.2 s" in done.stderr
    assert "raise load_timeout_s" in done.stderr


def test_server_listens_on_loopback_unless_told_otherwise(bundles: dict[str, Path], tmp_path: Path) -> None:
    with server_process(tmp_path, "--bundle", str(bundles["tiny"])) as server:
        sockets = psutil.Process(server.process.pid).net_connections("inet")
        listening = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert len([one for one in sockets if one.status == psutil.CONN_LISTEN]) == 2, "calls and metrics"


def test_json_log_holds_nothing_else(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Whatever strangers send to a port with TLS, which the core of grpc would print lines about."""
    identity = Authority(tmp_path / "authority").identity("127.0.0.1")
    flags = ["--tls-certificate", identity.certificate, "--tls-key", identity.key, "--log-format", "json"]
    with server_process(tmp_path, "--bundle", str(bundles["tiny"]), *map(str, flags)) as server:
        host, port = server.address.rsplit(":", 1)
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(2000)):
            with socket.create_connection((host, int(port)), timeout=EXIT_TIMEOUT_S) as stranger:
                stranger.sendall(sent)
                with contextlib.suppress(ConnectionError):
                    while stranger.recv(1000):
                        pass
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    lines = server.log.read_text(encoding="utf-8").splitlines()
    assert "server.stopped" in {json.loads(line)["event"] for line in lines}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_server_that_cannot_be_heard_serves_and_ends_as_it_should(bundles: dict[str, Path], tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    command = serve_command("--bundle", str(bundles["tiny"]), "--ready-file", str(ready_file), "--profile")
    with (
        Path("/dev/full").open("w", encoding="utf-8") as full,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=full, stderr=full) as process,
    ):
        try:
            while not ready_file.exists():
                assert process.poll() is None
                time.sleep(0.05)
            with grpc.insecure_channel(json.loads(ready_file.read_bytes())["address"]) as channel:
                stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
                assert collect(stub.Generate(make_request(), timeout=TIMEOUT_S)).indices == [0, 1, 2, 3, 4]
            process.send_signal(signal.SIGTERM)
            assert process.wait(EXIT_TIMEOUT_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("is_complaint", [False, True])
def test_what_nobody_can_be_told_is_lost_and_nothing_else(is_complaint: bool) -> None:
    program = f"""
import sys
from labelmint_service.terminal import complain, tell
{"complain" if is_complaint else "tell"}("lost")
{"complain" if is_complaint else "tell"}("lost as well")
sys.exit(3)
"""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stderr" if is_complaint else "stdout": writing}
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=TIMEOUT_S, **streams)  # type: ignore[call-overload]  # one stream
    os.close(writing)

    assert done.returncode == 3
