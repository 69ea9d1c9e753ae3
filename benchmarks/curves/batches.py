"""Throughput by batch size: the engine alone, with another batch in the profile each time."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelmint.bundle import open_bundle
from labelmint.v1 import bundle_pb2
from labelmint_service.engine import Engine, EngineChoice, load_engine
from labelmint_service.models.latents import latents_at


def measure_batches(bundle: Path, engine: str, sizes: Sequence[int], rounds: int) -> dict[str, dict[str, float]]:
    """Time runs of each size, in turns.

    Args:
        bundle: Folder of the bundle.
        engine: Name of the engine.
        sizes: Rows of a run.
        rounds: Timed runs of each size.

    Returns:
        By size: median samples a second and milliseconds a run.
    """
    opened = open_bundle(bundle)
    engines: dict[int, Engine] = {}
    for size in sizes:
        manifest = bundle_pb2.Manifest()
        manifest.CopyFrom(opened.manifest)
        manifest.runtime.batch_size = size
        engines[size] = load_engine(dataclasses.replace(opened, manifest=manifest), EngineChoice(engine=engine))
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(rounds + 1):
        for size, loaded in engines.items():
            indices = np.arange(number * size, (number + 1) * size, dtype=np.uint64)
            inputs = latents_at(opened.manifest, 1, indices, class_index=0)
            began = time.perf_counter()
            loaded.run(inputs)
            if number:  # the first round warms up
                times[size].append(time.perf_counter() - began)
    for loaded in engines.values():
        loaded.close()
    medians = {size: statistics.median(values) for size, values in times.items()}
    return {
        str(size): {"samples_per_s": round(size / median, 3), "run_ms": round(median * 1e3, 3)}
        for size, median in medians.items()
    }
