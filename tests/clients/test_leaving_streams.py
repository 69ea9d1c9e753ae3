"""Streams that their reader leaves early, or is torn out of: what was not delivered is still due."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from labelmint.v1 import service_pb2
from labelmint_client import AsyncClient, Client, SampleStream, UsageError
from labelmint_client._channel import LazyChannel, process_id
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import ScriptedServer, ScriptedServicer


@pytest.mark.parametrize("num_read", [1, 4, 6])
def test_stream_that_was_closed_says_where_to_go_on(client: Client, servicer: ScriptedServicer, num_read: int) -> None:
    servicer.batch_size = 4
    with client.generate("m", seed=1, count=10, start_index=100) as stream:
        first = [next(stream).index for _ in range(num_read)]
    rest = client.generate("m", seed=1, count=10 - stream.num_samples, start_index=stream.next_index)

    assert list(stream) == []
    assert first + [sample.index for sample in rest] == list(range(100, 110))


async def test_async_stream_that_was_closed_says_where_to_go_on(server: ScriptedServer) -> None:
    server.servicer.batch_size = 4
    async with AsyncClient(server.address, retry=QUICK) as client:
        async with client.generate("m", seed=1, count=10) as stream:
            first = [(await anext(stream)).index for _ in range(3)]
        rest = client.generate("m", seed=1, count=10 - stream.num_samples, start_index=stream.next_index)
        assert [sample async for sample in stream] == []
        assert first + [sample.index async for sample in rest] == list(range(10))


def test_reader_interrupted_while_it_waits_can_read_on_without_a_gap(
    client: Client, servicer: ScriptedServicer
) -> None:
    waits, release = threading.Event(), threading.Event()

    def interrupt(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
        if (call, number) == (0, 2):
            waits.wait(60)
            os.kill(os.getpid(), signal.SIGINT)
            release.wait(60)
        return batch

    servicer.rewrite = interrupt
    stream = client.generate("m", seed=1, count=20)
    indices = [next(stream).index for _ in range(4)]

    def wait_for_the_fifth() -> None:
        waits.set()
        next(stream)

    with pytest.raises(KeyboardInterrupt):
        wait_for_the_fifth()
    release.set()

    assert indices + [sample.index for sample in stream] == list(range(20))


def test_reader_interrupted_while_it_decodes_can_read_on_without_a_gap(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = client.generate("m", seed=1, count=20)
    indices = [next(stream).index for _ in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(SampleStream, "_decode", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(stream)

    assert indices + [sample.index for sample in stream] == list(range(20))


def _interrupted(stream: SampleStream, batch: object) -> None:
    raise KeyboardInterrupt


async def test_call_of_an_async_client_that_is_closed_meanwhile_is_no_cancellation() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = AsyncClient(f"127.0.0.1:{silent.getsockname()[1]}")
        call = asyncio.create_task(client.get_model("m"))
        connection, _ = await asyncio.to_thread(silent.accept)
        with connection:
            await client.close()
            with pytest.raises(UsageError, match="closed"):
                await call


async def test_cancelled_call_of_an_async_client_stays_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with AsyncClient(f"127.0.0.1:{silent.getsockname()[1]}") as client:
            call = asyncio.create_task(client.get_model("m"))
            connection, _ = await asyncio.to_thread(silent.accept)
            with connection:
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call


async def test_leaving_an_async_loop_early_cancels_the_call(server: ScriptedServer) -> None:
    async def first_index(client: AsyncClient) -> int:
        async for sample in client.generate("m", seed=1, endless=True):
            return sample.index
        return -1

    async with AsyncClient(server.address, retry=QUICK) as client:
        assert await first_index(client) == 0
        assert await asyncio.to_thread(server.servicer.cancelled.wait, 20)


LOOPS = """
    import asyncio, gc, sys
    import grpc.aio
    from labelmint_client import AsyncClient

    client = AsyncClient(sys.argv[1])

    async def read():
        assert [sample.index async for sample in client.generate("m", seed=1, count=3)] == [0, 1, 2]

    for _ in range(5):
        asyncio.run(read())
    gc.collect()
    print(sum(isinstance(found, grpc.aio.Channel) for found in gc.get_objects()))
"""


def test_connection_of_an_event_loop_that_is_over_is_not_kept(server: ScriptedServer, tmp_path: Path) -> None:
    script = tmp_path / "loops.py"
    script.write_text(textwrap.dedent(LOOPS))
    command = [sys.executable, str(script), server.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_threads_that_call_first_at_the_same_time_share_one_channel() -> None:
    num_opened = 0
    both = threading.Barrier(2)

    def open_channel() -> object:
        nonlocal num_opened
        num_opened += 1
        with contextlib.suppress(threading.BrokenBarrierError):  # only one thread is to come here
            both.wait(0.5)
        return object()

    channel: LazyChannel[object] = LazyChannel(open_channel, process_id)
    threads = [threading.Thread(target=channel.get) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert num_opened == 1
