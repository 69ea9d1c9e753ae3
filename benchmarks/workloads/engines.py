"""An engine of the service on the bundle of a workload. A worker."""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from benchmarks.workloads.answers import RunAnswer, save_labels
from labelmint_service.engine import EngineChoice
from labelmint_service.engine.fused.gpu.driver import CudaDevice
from labelmint_service.engine.loading import ALGORITHMS, ENGINES
from labelmint_service.engine.sessions import find_provider
from labelmint_service.models.latents import latents_at
from labelmint_service.models.served import load_model


def _prepare() -> tuple[Document, Answer]:
    parser = argparse.ArgumentParser(description="Label pictures of a bundle with an engine of the service.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--algorithms", choices=ALGORITHMS, default="fast")
    arguments = parser.parse_args()
    find_provider(arguments.provider)  # says what is missing, before the driver does
    gpu = CudaDevice() if arguments.provider == "cuda" else None
    held_by_others = gpu.allocated_bytes() if gpu else 0
    choice = EngineChoice(
        engine=arguments.engine,
        provider=arguments.provider,
        kernel=arguments.kernel,
        algorithms=arguments.algorithms,
    )
    model = load_model(arguments.bundle, choice)
    # An engine takes all that it needs when it is loaded and run once; later the other contenders may take more, too.
    peak_device_bytes = gpu.allocated_bytes() - held_by_others if gpu else None
    engine, manifest = model.engine, model.bundle.manifest

    def answer(request: Document) -> Document:
        answers, kept = [], []
        first, stop = request["first_index"], request["first_index"] + request["count"]
        for start in range(first, stop, engine.batch_size):
            indices = np.arange(start, min(start + engine.batch_size, stop), dtype=np.uint64)
            inputs = latents_at(manifest, request["seed"], indices, truncation_psi=1.0)
            began = time.perf_counter_ns()
            batch = engine.run(inputs)
            spent = time.perf_counter_ns() - began
            stages = engine.stages_ns
            shares = {name: ns // len(indices) for name, ns in stages.items()}
            answers.append(RunAnswer(total_ns=spent // len(indices), stages_ns=shares))
            if request["labels"]:
                kept += list(zip(batch.label, batch.uncertainty_map, strict=True))
        save_labels(request, kept)
        return {
            "runs": [one.document() for one in answers],
            "peak_rss_bytes": peak_rss_bytes(),
            "peak_device_bytes": peak_device_bytes,
        }

    described = {"digest": model.bundle.digest, "numerics": json.loads(model.numerics.document)}
    return {**described, "precision": manifest.precision, "batch_size": engine.batch_size}, answer


if __name__ == "__main__":
    answer_requests(_prepare)
