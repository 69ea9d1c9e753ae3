"""Reads many streams at a time and watches the server's health and memory."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from benchmarks.endurance.prober import TIMEOUT_S as PROBE_TIMEOUT_S
from benchmarks.errors import WorkerError
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.worker import Worker
from benchmarks.reporting.statistics import summarize_durations
from labelmint.errors import LabelmintError
from labelmint_client import AsyncClient

STREAMS_A_CONNECTION = 50
SAMPLE_MEMORY_S = 0.5
WARM_UP_SHARE = 0.25
"""Of the time, before memory counts: caches and pools fill."""
_TIMEOUT_S = 600.0
_MIB = 2**20


def endure(bundle: Path, engine: str, model: str, num_streams: int, seconds: float) -> dict[str, object]:
    """Read endless streams for some time.

    Args:
        bundle: Folder of the bundle.
        engine: Name of the engine.
        model: Name of the model.
        num_streams: Streams at a time.
        seconds: How long.

    Returns:
        Samples, errors, health checks in milliseconds, and the server's resident memory over time.

    Raises:
        WorkerError: The server ended, or a process failed.
    """
    flags = ("--max-streams", str(num_streams))
    with (
        ServerProcess(bundle, engine=engine, timeout_s=_TIMEOUT_S, flags=flags) as server,
        Worker("benchmarks.endurance.prober", ["--address", server.address], timeout_s=_TIMEOUT_S) as prober,
    ):
        return asyncio.run(_endure(server, prober, model, num_streams, seconds))


async def _endure(
    server: ServerProcess, prober: Worker, model: str, num_streams: int, seconds: float
) -> dict[str, object]:
    process = psutil.Process(server.pid)
    counts, errors = [0] * num_streams, list[str]()
    clients = [AsyncClient(server.address) for _ in range(-(-num_streams // STREAMS_A_CONNECTION))]

    async def read(number: int) -> None:
        """Samples of one seed in order; anything else is an error."""
        stream = clients[number // STREAMS_A_CONNECTION].generate(
            model, seed=number, endless=True, image_codec="jpeg", mask_codec="zstd"
        )
        try:
            async for sample in stream:
                if sample.index != counts[number]:
                    errors.append(f"stream {number}: sample {sample.index} came, expected {counts[number]}")
                counts[number] += 1
        except LabelmintError as error:
            errors.append(f"stream {number}: {error}")
        else:
            errors.append(f"stream {number}: it ended after {counts[number]} samples, but is endless")

    reading = [asyncio.create_task(read(number)) for number in range(num_streams)]
    began_s = time.monotonic()
    probing = asyncio.create_task(
        asyncio.to_thread(prober.ask, {"seconds": seconds}, timeout_s=seconds + PROBE_TIMEOUT_S)
    )
    memory: list[tuple[float, int]] = []
    while not probing.done():
        memory.append((time.monotonic() - began_s, process.memory_info().rss))
        await asyncio.wait({probing}, timeout=SAMPLE_MEMORY_S)
    took_s, num_samples, slowest = time.monotonic() - began_s, sum(counts), min(counts)
    for task in reading:
        task.cancel()
    outcomes = await asyncio.gather(*reading, return_exceptions=True)
    errors += [f"stream {number}: {error!r}" for number, error in enumerate(outcomes) if isinstance(error, Exception)]
    for client in clients:
        await client.close()
    probed = await probing
    if (status := server.exit_status()) is not None:
        raise WorkerError(f"the server ended with status {status} while its streams were read; see its message above")
    return {
        "samples": num_samples,
        "samples_per_s": round(num_samples / took_s, 2),
        "least_samples_of_a_stream": slowest,
        "errors": errors,
        "health_ms": summarize_durations(probed["durations_ns"]),
        "health_failed": probed["failed"],
        "memory": summarize_memory(memory),
    }


def summarize_memory(memory: Sequence[tuple[float, int]]) -> dict[str, object]:
    """Resident memory after the warm-up: the line through it.

    Args:
        memory: Seconds since the start, and bytes; at least two after the warm-up.

    Returns:
        MiB at the end of the warm-up and at the end, by that line, and its slope.
    """
    times, sizes = np.array([at for at, _ in memory]), np.array([size for _, size in memory]) / _MIB
    late = times >= WARM_UP_SHARE * times[-1]
    slope, offset = np.polyfit(times[late], sizes[late], 1)
    first, last = times[late][0], times[late][-1]
    return {
        "after_warm_up_mib": round(float(offset + slope * first), 1),
        "at_the_end_mib": round(float(offset + slope * last), 1),
        "mib_per_minute": round(float(60 * slope), 2),
        "peak_mib": round(float(sizes.max()), 1),
    }
