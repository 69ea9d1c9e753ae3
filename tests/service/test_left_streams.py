"""Callers who leave while their stream is being closed: its place and its shared memory are free again all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labelmint.v1.service_pb2 import GenerateRequest, LabelOptions, LabelRequest, OutputOptions, SharedMemory
from labelmint_service.access.control import ANYONE
from labelmint_service.streams.call import StreamCall
from labelmint_service.streams.labelling import LabelSession
from labelmint_service.streams.sample_stream import SampleStream
from labelmint_service.streams.sampling import SamplingService
from labelmint_service.tracing.calls import UNTRACED
from tests.service.calls import TIMEOUT_S
from tests.serving import serving

RING_BYTES = 2**20
NAME = f"labelmint-{'0' * 32}"
CALL = StreamCall(caller=ANYONE, deadline_s=None, request_id="left", trace=UNTRACED)
OUTPUT = OutputOptions(shared_memory=SharedMemory(name=NAME, num_bytes=RING_BYTES))


async def leave(opened: SampleStream | LabelSession) -> None:
    """Close a stream, and be cancelled as soon as that waits."""
    await opened.__aenter__()
    leaving = asyncio.create_task(opened.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving


async def leave_generate(sampling: SamplingService) -> None:
    request = GenerateRequest(model="tiny", seed=1, endless=True, output=OUTPUT)
    await leave(sampling.open_generate(request, CALL))


async def leave_label(sampling: SamplingService) -> None:
    async def requests() -> AsyncIterator[LabelRequest]:
        yield LabelRequest(options=LabelOptions(model="tiny", output=OUTPUT))
        await asyncio.Event().wait()

    session = await sampling.open_label(requests(), CALL)
    await leave(session)


def open_rings() -> int:
    """Descriptors of this process that are the ring."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += link.readlink().name == NAME
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list descriptors there")
def test_caller_who_leaves_twice_leaves_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(bytes(64 + RING_BYTES))
    with serving([bundles["tiny"]], shared_memory_folder=tmp_path) as running:
        for left in (leave_generate, leave_label):
            sampling = running.server._sampling
            asyncio.run_coroutine_threadsafe(left(sampling), running.loop).result(TIMEOUT_S)
            assert not running.server._fleet.num_streams(running.models[0]), left.__name__
            assert not open_rings(), left.__name__
