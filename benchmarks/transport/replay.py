"""A worker: the service, with an engine that replays a recorded batch and so costs nothing."""

import argparse
import asyncio
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from benchmarks.transport.recording import load_recording
from labelmint.bundle import open_bundle
from labelmint.memory import keep_freed_memory
from labelmint.v1 import bundle_pb2
from labelmint_service.engine import EngineBatch, JsonValue, LatentInputs
from labelmint_service.models.served import ServedModel, serve_bundle
from labelmint_service.ready_file import Readiness
from labelmint_service.server import LabelmintServer
from labelmint_service.settings import EMBEDDED_BUNDLE, ServiceSettings

SHARED_MEMORY_FOLDER = Path("/dev/shm")
"""Where the readers make files, with random names."""


class ReplayEngine:
    """Gives the same samples for whatever comes.

    Args:
        batch: The samples.
        w_dim: Of the model whose place it takes.
    """

    name = "replay"

    def __init__(self, batch: EngineBatch, w_dim: int) -> None:
        self._batch = batch
        self._w_dim = w_dim
        self.batch_size = len(batch.image)
        self.stages_ns: dict[str, int] = {}

    def describe(self) -> Mapping[str, JsonValue]:
        return {"engine": self.name}

    def run(self, inputs: LatentInputs) -> EngineBatch:
        return self._batch.rows(0, inputs.num_rows)

    def run_styles(self, ws: npt.NDArray[np.float32]) -> EngineBatch:
        return self._batch.rows(0, len(ws))

    def average_style(self) -> npt.NDArray[np.float32]:
        return np.zeros(self._w_dim, dtype=np.float32)

    def resize(self, batch_size: int) -> bool:
        self.batch_size = batch_size
        return True

    def close(self) -> None:
        pass


def replay_model(batch: EngineBatch) -> ServedModel:
    """The embedded model with recorded samples, of any size, in place of its own."""
    bundle = open_bundle(EMBEDDED_BUNDLE)
    manifest = bundle_pb2.Manifest()
    manifest.CopyFrom(bundle.manifest)
    _, height, width, _ = batch.image.shape
    frame = manifest.frame
    frame.image_height, frame.image_width, frame.label_height, frame.label_width = height, width, height, width
    manifest.runtime.batch_size = len(batch.image)
    return serve_bundle(replace(bundle, manifest=manifest), ReplayEngine(batch, manifest.backbone.w_dim))


def _prepare() -> tuple[Document, Answer]:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description="Serve a recording.")
    parser.add_argument("--recording", type=Path, required=True)
    model = replay_model(load_recording(parser.parse_args().recording))
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def start() -> tuple[LabelmintServer, Readiness]:
        settings = ServiceSettings(port=0, metrics=False, shared_memory_folder=SHARED_MEMORY_FOLDER)
        server = LabelmintServer(settings, [model])
        return server, await server.start()

    server, readiness = asyncio.run_coroutine_threadsafe(start(), loop).result()

    def answer(_: Document) -> Document:
        assert server is not None, "it serves as long as somebody holds it"
        return {"peak_rss_bytes": peak_rss_bytes()}

    description: Document = {"address": readiness.address, "model": model.name, "pid": os.getpid()}
    return description, answer


if __name__ == "__main__":
    answer_requests(_prepare)
