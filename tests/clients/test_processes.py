from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from labelmint.v1 import service_pb2
from labelmint_client import AsyncClient
from tests.clients.conftest import QUICK
from tests.clients.scripted_server import ScriptedServer

FORKING = """
    import json, multiprocessing, sys
    from labelmint_client import Client, UsageError

    def read(client, shard, queue):
        stream = client.generate("m", seed=1, end_index=40, shard_index=shard, num_shards=2)
        queue.put(("indices", [sample.index for sample in stream]))

    def reuse(stream, queue):
        try:
            next(stream)
        except UsageError as error:
            queue.put(("refused", str(error)))

    def main():
        client = Client(sys.argv[1])
        running = client.generate("m", seed=1, endless=True)
        if sys.argv[2] == "used":
            next(running)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        workers = [context.Process(target=read, args=(client, shard, queue)) for shard in range(2)]
        if sys.argv[2] == "used":
            workers.append(context.Process(target=reuse, args=(running, queue)))
        for worker in workers:
            worker.start()
        results = [queue.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
        ok = [next(running).index for _ in range(4)]
        print(json.dumps({"results": results, "codes": [worker.exitcode for worker in workers], "parent": ok}))
        client.close()

    main()
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.parametrize("parent", ["unused", "used"])
def test_forked_children_open_their_own_channel(server: ScriptedServer, tmp_path: Path, parent: str) -> None:
    script = tmp_path / "forking.py"
    script.write_text(textwrap.dedent(FORKING))
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(script), server.address, parent]
    # Once grpc has run, a child can only rely on it with grpc's own support for forks.
    environment = os.environ | ({"GRPC_ENABLE_FORK_SUPPORT": "1"} if parent == "used" else {})
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    indices = sorted(index for kind, value in outcome["results"] if kind == "indices" for index in value)
    assert indices == list(range(40))
    assert set(outcome["codes"]) == {0}
    assert outcome["parent"] == ([1, 2, 3, 4] if parent == "used" else [0, 1, 2, 3])
    if parent == "used":
        assert any(kind == "refused" and "one stream in each process" in value for kind, value in outcome["results"])


def test_async_client_serves_one_event_loop_after_another(server: ScriptedServer, tmp_path: Path) -> None:
    script = tmp_path / "loops.py"
    script.write_text(
        textwrap.dedent("""
            import asyncio, sys
            from labelmint_client import AsyncClient, UsageError

            client = AsyncClient(sys.argv[1])
            streams = []

            async def read():
                stream = client.generate("m", seed=1, count=3)
                streams.append(client.generate("m", seed=1, endless=True))
                await anext(streams[-1])
                return [sample.index async for sample in stream]

            async def reuse():
                try:
                    await anext(streams[0])
                except UsageError as error:
                    return "event loop" in str(error)

            print(asyncio.run(read()), asyncio.run(read()), asyncio.run(reuse()))
        """)
    )
    command = [sys.executable, str(script), server.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 1, 2] [0, 1, 2] True"


async def test_reader_cancelled_while_it_waits_can_read_on_without_a_gap(server: ScriptedServer) -> None:
    waiting, release = threading.Event(), threading.Event()

    def hold(call: int, number: int, batch: service_pb2.SampleBatch) -> service_pb2.SampleBatch:
        if (call, number) == (0, 2):
            waiting.set()
            release.wait(60)
        return batch

    server.servicer.rewrite = hold
    async with AsyncClient(server.address, retry=QUICK) as client:
        stream = client.generate("m", seed=1, count=20)
        indices: list[int] = []

        async def read() -> None:
            async for sample in stream:
                indices.append(sample.index)  # noqa: PERF401  # what was read before the cancellation counts

        reader = asyncio.create_task(read())
        await asyncio.to_thread(waiting.wait, 60)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        release.set()
        assert len(indices) < 20
        await read()
    assert indices == list(range(20))


BARE_IMPORT = """
    import importlib, importlib.abc, json, pkgutil, sys

    ALLOWED = {"labelmint", "labelmint_client", "grpc", "google", "numpy", "typing_extensions"}

    class Refuser(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            top = name.partition(".")[0]
            if top not in ALLOWED and top not in sys.stdlib_module_names and not top.startswith("_"):
                raise ImportError(f"{name} is not in the base install")
            return None

    sys.meta_path.insert(0, Refuser())
    import labelmint_client

    names = [module.name for module in pkgutil.walk_packages(labelmint_client.__path__, "labelmint_client.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    print(json.dumps(names))
"""


def test_every_module_imports_with_the_base_install_alone(tmp_path: Path) -> None:
    script = tmp_path / "bare.py"
    script.write_text(textwrap.dedent(BARE_IMPORT))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "labelmint_client._sync" in json.loads(done.stdout)
