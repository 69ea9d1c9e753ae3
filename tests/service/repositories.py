"""Model repositories that tests fill and serve, engines that they hold while versions load, the truth about samples."""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import onnxruntime
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from labelmint.addresses import latents
from labelmint.bundle import Bundle, open_bundle
from labelmint.v1 import admin_pb2, admin_pb2_grpc, service_pb2
from labelmint_service.engine import load_engine
from tests.service.calls import EVERY_FIELD, TIMEOUT_S, Collected, collect, describe_failure, make_request
from tests.service.scripted_engine import WAIT_S, ScriptedEngine
from tests.serving import Serving, serving

UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
FIELDS = {"image_raw": "image", "mask_raw": "label", "keypoints": "keypoints", "uncertainty_map": "uncertainty_map"}


class Repository:
    """A repository of the model "tiny".

    Args:
        root: Its folder; it is created.
        sources: Bundles to copy from, one for each number.
    """

    def __init__(self, root: Path, sources: dict[int, Path]) -> None:
        self.root = root
        self._sources = sources
        root.mkdir()

    def folder(self, version: str, *, name: str = "tiny") -> Path:
        return self.root / name / version

    def add(self, version: str, source: int, *, name: str = "tiny") -> Path:
        """Puts a version there at once, as an operator should."""
        target = self.folder(version, name=name)
        unfinished = target.with_name(f".{version}")
        shutil.copytree(self._sources[source], unfinished)
        unfinished.rename(target)
        return target

    def add_part(self, version: str, source: int) -> Path:
        """Begins to copy a version in place: everything but half of the weights."""
        target = self.folder(version)
        shutil.copytree(self._sources[source], target)
        weights = target / "weights.bin"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        return target

    def finish(self, version: str, source: int) -> None:
        """Copies the rest."""
        shutil.copy(self._sources[source] / "weights.bin", self.folder(version))

    def remove(self, version: str) -> None:
        shutil.rmtree(self.folder(version))

    def write(self, text: str) -> None:
        """Writes model.json."""
        unfinished = self.root / "tiny" / ".writing"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(self.root / "tiny" / "model.json")

    def digest(self, source: int) -> str:
        return open_bundle(self._sources[source]).digest

    def truth(self, source: int) -> Truth:
        return Truth(self._sources[source])


class Truth:
    """What the graph of a bundle gives, run directly."""

    def __init__(self, bundle: Path, seed: int = 7) -> None:
        self._manifest = open_bundle(bundle).manifest
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = bundle / self._manifest.graphs.model
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._seed = seed

    def check(self, got: Collected) -> None:
        """Compares samples bit for bit."""
        size = self._manifest.runtime.batch_size
        assert got.indices, "there is nothing to compare"
        for first in range(0, len(got.indices), size):
            indices = got.indices[first : first + size]
            padded = np.array([*indices, *indices[:1] * (size - len(indices))], dtype=np.uint64)
            psi = np.full(size, self._manifest.truncation.default_psi, dtype=np.float32)
            z = latents(self._seed, padded, self._manifest.backbone.z_dim)
            expected = self._session.run(list(FIELDS.values()), {"z": z, "truncation_psi": psi})
            for name, array in zip(FIELDS, expected, strict=True):
                np.testing.assert_array_equal(
                    got.arrays[name][first : first + size], array[: len(indices)], strict=True
                )


class LoadingEngine(ScriptedEngine):
    """Says when it was closed."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(load_engine(bundle))
        self.closed = threading.Event()

    def close(self) -> None:
        super().close()
        self.closed.set()


class ScriptedLoading:
    """Stands in the place of `models.load_engine`.

    Attributes:
        held: Versions whose engines wait from their first run on.
        unmade: Versions whose next engine waits before it is made, until the event is set.
        engines: Made so far, by version.
    """

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.unmade: dict[str, threading.Event] = {}
        self.engines: dict[str, list[LoadingEngine]] = {}
        self._made = threading.Condition()

    def __call__(self, bundle: Bundle, *_: object) -> LoadingEngine:
        unmade = self.unmade.pop(bundle.root.name, None)
        assert unmade is None or unmade.wait(WAIT_S), "the test never let this engine be made"
        engine = LoadingEngine(bundle)
        if bundle.root.name in self.held:
            engine.hold()
        with self._made:
            self.engines.setdefault(bundle.root.name, []).append(engine)
            self._made.notify_all()
        return engine

    def wait_for(self, version: str) -> LoadingEngine:
        """The newest engine of a version, once its first run has begun."""
        engine = self.wait_until_made(version)
        engine.wait_until_begun()
        return engine

    def wait_until_made(self, version: str, count: int = 1) -> LoadingEngine:
        """The newest engine of a version, once there are so many."""
        with self._made:
            made = self._made.wait_for(lambda: len(self.engines.get(version, [])) >= count, WAIT_S)
            assert made, f"{version} was never loaded"
            return self.engines[version][-1]


class LogReader(logging.Handler):
    """Reads the log of the service while a with block lasts."""

    def __init__(self) -> None:
        super().__init__()
        self._records: queue.Queue[logging.LogRecord] = queue.Queue()
        self._logger = logging.getLogger("labelmint_service")

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._records.put(record)

    def wait_for(self, event: str, text: str) -> None:
        """Waits for an event whose message holds a text."""
        while True:
            record = self._records.get(timeout=WAIT_S)
            fields: dict[str, object] = getattr(record, "labelmint_fields", {})
            if record.getMessage() == event and text in str(fields.get("message", "")):
                return


def states(admin: admin_pb2_grpc.LabelMintAdminStub) -> dict[str, str]:
    """State by reference, as the admin service lists them; "" is not loaded."""
    answer = admin.ListRepository(admin_pb2.ListRepositoryRequest(), timeout=TIMEOUT_S)
    prefix = "VERSION_STATE_"
    found = {}
    for model in answer.models:
        for version in model.versions:
            state = service_pb2.VersionState.Name(version.version.state).removeprefix(prefix)
            found[f"{model.name}@{version.version.version}"] = "" if state == "UNSPECIFIED" else state.lower()
    return found


def wait_for_health(running: Serving, name: str, *expected: int) -> None:
    """Waits, on a watch of the server's, until health says so."""
    stub = health_pb2_grpc.HealthStub(running.channel())
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
    for answer in watch:
        if answer.status in expected:
            watch.cancel()
            return


def explicit(repository: Repository, **settings: Any) -> AbstractContextManager[Serving]:  # Any: of every type
    """A server that loads what it is asked for: "tiny" to begin with."""
    given = {"repository_mode": "explicit", "load": ("tiny",), "admin_port": 0, **settings}
    return serving([], model_repository=repository.root, **given)


def polled(repository: Repository, **settings: Any) -> AbstractContextManager[Serving]:  # Any: of every type
    """A server that serves what lies in the folder."""
    return serving([], model_repository=repository.root, poll_interval_s=0.02, admin_port=0, **settings)


@contextlib.contextmanager
def second_in_load(
    repository: Repository,
    loading: ScriptedLoading,
    pool: ThreadPoolExecutor,
    **settings: Any,  # Any: of every type
) -> Iterator[tuple[Serving, Future[None], LoadingEngine]]:
    """A server of version 1 while it loads version 2: that load, and the engine held in its first run."""
    repository.add("2", 2)
    with explicit(repository, load=("tiny@1",), **settings) as served:
        loading.held.add("2")
        loads = pool.submit(load, served, "tiny@2")
        yield served, loads, loading.wait_for("2")


def load(running: Serving, model: str) -> None:
    """Loads a version and waits for it."""
    running.admin().LoadModel(admin_pb2.LoadModelRequest(model=model), timeout=TIMEOUT_S)


def wanted(model: str, **fields: Any) -> service_pb2.GenerateRequest:  # Any: fields of every type
    """A request for all that the truth knows."""
    return make_request(model=model, output=service_pb2.OutputOptions(fields=EVERY_FIELD), **fields)


def endless(model: str) -> service_pb2.GenerateRequest:
    return wanted(model, max_accepted=None, endless=True)


def digest_of(running: Serving, model: str) -> str:
    """Which bundle answers."""
    batches = collect(running.stub().Generate(wanted(model), timeout=TIMEOUT_S)).batches
    [digest] = {batch.digest for batch in batches}
    return digest


def failure_of(call: Callable[[], object]) -> tuple[str, str]:
    """Code and text of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    failure = describe_failure(caught.value)
    return failure.code, failure.text


def health_of(running: Serving, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(running.channel())
    try:
        return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status)
    except grpc.RpcError:
        return int(UNKNOWN)
