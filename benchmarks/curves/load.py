"""Latency by load: calls for one sample each come at random (Poisson), whether or not earlier ones have been answered.

A call's latency counts from the moment at which it was due, so a server that falls behind cannot hide it.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.processes.server import ServerProcess
from benchmarks.reporting.statistics import summarize_durations
from labelmint_client import AsyncClient

_TIMEOUT_S = 600.0
_IN_FLIGHT = 16
_INDICES_A_LOAD = 2**32


def measure_loads(bundle: Path, engine: str, model: str, loads: Sequence[float], seconds: float) -> dict[str, object]:
    """Measure how long calls take at some shares of what the server can do.

    Args:
        bundle: Folder of the bundle.
        engine: Name of the engine.
        model: Name of the model.
        loads: Rates of calls, as shares of the rate at which a server that is never idle answers them.
        seconds: Length of each load.

    Returns:
        That rate, and by load: calls a second, how many there were, and milliseconds.

    Raises:
        BenchmarkError: A load is so low that no call comes.
    """
    with ServerProcess(bundle, engine=engine, timeout_s=_TIMEOUT_S) as server:
        return asyncio.run(_measure(server.address, model, loads, seconds))


async def _measure(address: str, model: str, loads: Sequence[float], seconds: float) -> dict[str, object]:
    async with AsyncClient(address) as client:
        capacity = await _capacity(client, model, seconds)
        firsts = [number * _INDICES_A_LOAD for number in range(1, len(loads) + 1)]
        planned = [
            _plan_calls(load, load * capacity, seconds, first) for load, first in zip(loads, firsts, strict=True)
        ]
        by_load = {}
        for load, first, due in zip(loads, firsts, planned, strict=True):
            durations = await _open_loop(client, model, due, first)
            by_load[f"{load:g}"] = {
                "calls_per_s": round(load * capacity, 3),
                "latency_ms": summarize_durations(durations),
            }
        return {"answered_per_s": round(capacity, 3), "loads": by_load}


async def _capacity(client: AsyncClient, model: str, seconds: float) -> float:
    """Calls a second when some are always in flight."""
    indices = iter(range(_INDICES_A_LOAD))
    ends = time.perf_counter() + seconds

    async def keep_calling() -> int:
        count = 0
        while time.perf_counter() < ends:
            await _call(client, model, next(indices))
            count += 1
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*(keep_calling() for _ in range(_IN_FLIGHT)))
    return sum(counts) / (time.perf_counter() - began)


def _plan_calls(load: float, rate: float, seconds: float, seed: int) -> list[float]:
    """When calls are due, seconds after the start."""
    arrivals, due = [], 0.0
    rng = random.Random(seed)
    while (due := due + rng.expovariate(rate)) < seconds:
        arrivals.append(due)
    if not arrivals:
        raise BenchmarkError(
            f"at load {load:g}, which is {rate:.3g} calls a second here, no call comes in {seconds:g} s; give more "
            "--seconds or higher --loads",
            field="loads",
        )
    return arrivals


async def _open_loop(client: AsyncClient, model: str, arrivals: Sequence[float], first_index: int) -> list[int]:
    """Latencies, ns, of calls that are due at these times."""
    began = time.perf_counter()

    async def call_when_due(number: int, due_s: float) -> int:
        await asyncio.sleep(began + due_s - time.perf_counter())
        await _call(client, model, first_index + number)
        return int((time.perf_counter() - began - due_s) * 1e9)

    return list(await asyncio.gather(*(call_when_due(number, due_s) for number, due_s in enumerate(arrivals))))


async def _call(client: AsyncClient, model: str, index: int) -> None:
    async for _ in client.generate(model, seed=1, start_index=index, count=1):
        pass
