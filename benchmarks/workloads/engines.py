"""An engine of the service on the bundle of a workload. A worker."""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from benchmarks.workloads.answers import PictureAnswer, save_labels
from labelmint.addresses import latents
from labelmint_service.engine.loading import ENGINES
from labelmint_service.models.served import load_model


def _prepare() -> tuple[Document, Answer]:
    parser = argparse.ArgumentParser(description="Label pictures of a bundle with an engine of the service.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--kernel", default="auto")
    parser.add_argument("--provider", default="cpu")
    arguments = parser.parse_args()
    model = load_model(arguments.bundle, engine=arguments.engine, provider=arguments.provider, kernel=arguments.kernel)
    engine, backbone = model.engine, model.bundle.manifest.backbone

    def answer(request: Document) -> Document:
        answers, kept = [], []
        first, stop = request["first_index"], request["first_index"] + request["count"]
        for start in range(first, stop, engine.batch_size):
            indices = np.arange(start, min(start + engine.batch_size, stop), dtype=np.uint64)
            z = latents(request["seed"], indices, backbone.z_dim)
            psi = np.ones(len(indices), dtype=np.float32)
            began = time.perf_counter_ns()
            batch = engine.run(z, np.zeros((len(indices), 0), dtype=np.float32), psi)
            spent = time.perf_counter_ns() - began
            stages = engine.stages_ns
            shares = {name: ns // len(indices) for name, ns in stages.items()}
            answers += [PictureAnswer(total_ns=spent // len(indices), stages_ns=shares)] * len(indices)
            kept += list(zip(batch.label, batch.uncertainty_map, strict=True))
        save_labels(request, kept)
        return {
            "pictures": [one.document() for one in answers],
            "peak_rss_bytes": peak_rss_bytes(),
            "peak_device_bytes": engine.device_bytes() if hasattr(engine, "device_bytes") else None,
        }

    described = {"digest": model.bundle.digest, "numerics": json.loads(model.numerics.document)}
    return {**described, "batch_size": engine.batch_size}, answer


if __name__ == "__main__":
    answer_requests(_prepare)
