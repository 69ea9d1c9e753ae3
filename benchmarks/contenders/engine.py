"""The engine alone: a worker that runs the graphs of a bundle as the service does, without the service.

Only the time inside `Engine.run` counts; making latents and scores, which is the service's work, does not.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.contenders.rounds import Keeper, Round, RoundOutcome, SampleArrays
from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from labelmint.scores import image_score
from labelmint_service.engine import EngineBatch, EngineChoice, LatentInputs
from labelmint_service.models.latents import latents_at
from labelmint_service.models.served import ServedModel, load_model

FIELDS = ("image", "mask", "keypoints", "uncertainty")


class EngineContender:
    """Runs rounds on the engine of a bundle.

    Args:
        bundle: Folder of the bundle.
        engine: Name of the engine.
        provider: What it runs on.
    """

    def __init__(self, bundle: Path, engine: str = "onnxruntime", provider: str = "cpu") -> None:
        self._model: ServedModel = load_model(bundle, EngineChoice(engine=engine, provider=provider))
        manifest = self._model.bundle.manifest
        self._fields = tuple(field for field in FIELDS if field != "keypoints" or manifest.keypoints.names)

    def description(self) -> Document:
        """Bundle and numerics, for the other contenders to be compared with."""
        return {
            "model": self._model.name,
            "digest": self._model.bundle.digest,
            "numerics_id": self._model.numerics.id,
            "batch_size": self._model.engine.batch_size,
            "fields": list(self._fields),
        }

    def run(self, wanted: Round) -> RoundOutcome:
        """Run a round.

        Raises:
            LabelmintError: The engine failed.
        """
        batch_size, keeper, durations = self._model.engine.batch_size, Keeper(self._fields), []
        for number in range(wanted.warmup_batches + wanted.timed_batches):
            first = wanted.start_index + number * batch_size
            inputs = self._inputs(wanted.seed, first)
            began = time.perf_counter_ns()
            outputs = self._model.engine.run(inputs)
            durations.append(time.perf_counter_ns() - began)
            for sample in _samples(outputs):
                keeper.keep(sample)
        return RoundOutcome(batch_ns=tuple(durations[wanted.warmup_batches :]), digests=keeper.digests())

    def _inputs(self, seed: int, first_index: int) -> LatentInputs:
        """What a batch of addresses puts into the engine, as a request without options has it."""
        indices = np.arange(first_index, first_index + self._model.engine.batch_size, dtype=np.uint64)
        return latents_at(self._model.bundle.manifest, seed, indices)


def _samples(outputs: EngineBatch) -> Iterator[SampleArrays]:
    """The rows of a batch, as they are sent."""
    scores = image_score(outputs.uncertainty_map)
    for row in range(len(scores)):
        sample = {"image": outputs.image[row], "mask": outputs.label[row], "uncertainty": scores[row : row + 1]}
        yield sample if outputs.keypoints is None else {**sample, "keypoints": outputs.keypoints[row]}


def _prepare() -> tuple[Document, Answer]:
    parser = argparse.ArgumentParser(description="Run rounds on the engine of a bundle.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--provider", default="cpu")
    parsed = parser.parse_args()
    contender = EngineContender(parsed.bundle, parsed.engine, parsed.provider)

    def answer(request: Document) -> Document:
        return contender.run(Round.from_request(request)).answer() | {"peak_rss_bytes": peak_rss_bytes()}

    return contender.description(), answer


if __name__ == "__main__":
    answer_requests(_prepare)
