"""An engine whose runs a test lets through one by one, in front of a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmint.bundle import open_bundle
from labelmint_service.engine import Engine, EngineBatch, JsonValue, LatentInputs, load_engine
from labelmint_service.errors import EngineRunError
from labelmint_service.models.served import ServedModel, serve_bundle

WAIT_S = 120.0


class ScriptedEngine:
    """Runs the real engine; a test may hold it before each run, fail runs, and look at what ran.

    Attributes:
        runs: z of each run after the warm-up, float32 [N, z_dim].
        fails: If set, tells of a run's z whether it fails.
        began: Released once for every run that has begun.
    """

    def __init__(self, real: Engine) -> None:
        self._real = real
        self._gate: threading.Semaphore | None = None
        self.name = real.name
        self.batch_size = real.batch_size
        self.stages_ns = real.stages_ns
        self.runs: list[npt.NDArray[np.float32]] = []
        self.fails: Callable[[npt.NDArray[np.float32]], bool] | None = None
        self.began = threading.Semaphore(0)

    def hold(self) -> None:
        """From now on a run waits until it is let through; those that have begun are no news any more."""
        self.began = threading.Semaphore(0)
        self._gate = threading.Semaphore(0)

    def let(self, num_runs: int = 1) -> None:
        """Let runs through."""
        assert self._gate is not None, "hold first"
        self._gate.release(num_runs)

    def let_all(self) -> None:
        """Hold nothing any more."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release(1_000_000)

    def wait_until_begun(self) -> None:
        """Wait for the next run to begin."""
        assert self.began.acquire(timeout=WAIT_S), "no run began"

    @property
    def num_rows(self) -> int:
        """Rows of all runs."""
        return sum(len(z) for z in self.runs)

    def describe(self) -> Mapping[str, JsonValue]:
        return self._real.describe()

    def run(self, inputs: LatentInputs) -> EngineBatch:
        self.runs.append(np.array(inputs.z))
        self.began.release()
        if self._gate is not None:
            assert self._gate.acquire(timeout=WAIT_S), "the test never let this run through"
        if self.fails is not None and self.fails(inputs.z):
            raise EngineRunError("the script says so")
        return self._real.run(inputs)

    def run_styles(self, ws: npt.NDArray[np.float32]) -> EngineBatch:
        return self._real.run_styles(ws)

    def average_style(self) -> npt.NDArray[np.float32]:
        return self._real.average_style()

    def resize(self, batch_size: int) -> bool:
        self.batch_size = batch_size
        return self._real.resize(batch_size)

    def close(self) -> None:
        self.let_all()
        self._real.close()


def scripted_model(path: Path) -> tuple[ServedModel, ScriptedEngine]:
    """A bundle behind a scripted engine, warm, with no run counted."""
    bundle = open_bundle(path)
    engine = ScriptedEngine(load_engine(bundle))
    model = serve_bundle(bundle, engine)
    engine.runs.clear()
    engine.began = threading.Semaphore(0)
    return model, engine
