"""Readers that stop: what they cost the server, and what the others notice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import psutil
import pytest

from benchmarks.processes.worker import Worker
from benchmarks.transport.recording import load_recording, record
from benchmarks.transport.replay import replay_model
from labelmint.v1 import service_pb2, service_pb2_grpc
from labelmint_client import Client

SIZE, BATCH_SIZE = 512, 4
RECORDING = "recording.npz"
NUM_STOPPED, FEW_STOPPED = 50, 5
BATCH_BYTES = BATCH_SIZE * SIZE * SIZE * 4
MOST_BYTES = 16 * 2**20 + 2 * BATCH_BYTES
"""That a reader which stops may cost."""
MESSAGE_BYTES = BATCH_BYTES + 2**20
TURN_S, TURNS = 2.0, 6
SETTLED_S, WAIT_S = 2.0, 120.0


@contextmanager
def replaying(folder: Path) -> Iterator[Worker]:
    recording = folder / RECORDING
    record(recording, SIZE, BATCH_SIZE)
    with Worker("benchmarks.transport.replay", ["--recording", str(recording)], timeout_s=WAIT_S) as worker:
        yield worker


def rate_of(client: Client, model: str) -> float:
    """Samples a second of one reader, during a turn."""
    count, began = 0, time.perf_counter()
    with client.generate(model, seed=1, endless=True, max_message_bytes=MESSAGE_BYTES) as stream:
        while time.perf_counter() < began + TURN_S:
            next(stream)
            count += 1
    return count / (time.perf_counter() - began)


def replay_rate(folder: Path) -> float:
    """Samples a second of the engine alone."""
    model = replay_model(load_recording(folder / RECORDING))
    began = time.perf_counter()
    for _ in range(100):
        model.engine.run(model.probe.inputs)
    return 100 * BATCH_SIZE / (time.perf_counter() - began)


def settled_memory(process: psutil.Process) -> int:
    """Resident memory once it has not grown for a while."""
    largest, since = 0, time.monotonic()
    deadline = since + WAIT_S
    while time.monotonic() < since + SETTLED_S:
        assert time.monotonic() < deadline, f"the server grows for ever; it has {largest} bytes"
        now = process.memory_info().rss
        if now > largest + 2**20:
            largest, since = now, time.monotonic()
        time.sleep(0.05)
    return largest


def stop_readers(stack: ExitStack, address: str, model: str, count: int) -> None:
    """Begin endless streams and read one message of each."""
    request = service_pb2.GenerateRequest(model=model, seed=2, endless=True)
    request.output.max_message_bytes = MESSAGE_BYTES
    for number in range(count):
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = stack.enter_context(grpc.insecure_channel(address, options=[*options, ("reader", number)]))
        stub = service_pb2_grpc.LabelMintStub(channel)  # type: ignore[no-untyped-call]  # generated
        next(stub.Generate(request))


def test_stopped_readers_cost_little_and_others_read_on(tmp_path: Path) -> None:
    with replaying(tmp_path) as worker, ExitStack() as stack:
        address, model = worker.description["address"], worker.description["model"]
        process = psutil.Process(worker.description["pid"])
        client = stack.enter_context(Client(address))
        assert len(list(client.generate(model, seed=1, count=40, max_message_bytes=MESSAGE_BYTES))) == 40
        before_bytes = settled_memory(process)
        stop_readers(stack, address, model, FEW_STOPPED)
        grown = settled_memory(process) - before_bytes
        assert grown < FEW_STOPPED * MOST_BYTES, f"{grown / FEW_STOPPED / 2**20:.1f} MiB a stopped reader"
        assert len(list(client.generate(model, seed=1, count=40, max_message_bytes=MESSAGE_BYTES))) == 40


@pytest.mark.faults
def test_stopped_readers_cost_little_and_slow_nobody(tmp_path: Path) -> None:
    """Beside a server without them, in turns: the machine's own speed changes by more than they may cost."""
    with ExitStack() as stack:
        workers = []
        for name in ("alone", "beside"):
            (tmp_path / name).mkdir()
            workers.append(stack.enter_context(replaying(tmp_path / name)).description)
        servers = [(stack.enter_context(Client(worker["address"])), worker["model"]) for worker in workers]
        for client, model in servers:
            rate_of(client, model)  # buffers grow to their size
        process = psutil.Process(workers[1]["pid"])
        before_bytes = settled_memory(process)
        stop_readers(stack, workers[1]["address"], workers[1]["model"], NUM_STOPPED)
        grown = settled_memory(process) - before_bytes
        assert grown < NUM_STOPPED * MOST_BYTES, f"{grown / NUM_STOPPED / 2**20:.1f} MiB a stopped reader"

        assert replay_rate(tmp_path / "beside") >= 500, "such an engine fills no queue"
        turns = [[rate_of(*server) for server in servers] for _ in range(TURNS)]
        alone, beside = (max(rates) for rates in zip(*turns, strict=True))
        assert beside >= 0.9 * alone, f"{beside:.0f} samples a second beside them, {alone:.0f} without: {turns}"
