"""The measurement: contenders in processes of their own take turns, round after round, at the same addresses."""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders.rounds import LEAD_OUT_BATCHES, Round, RoundOutcome, check_parity
from benchmarks.contenders.stream import ENCODINGS
from benchmarks.errors import ParityError
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.worker import Worker
from benchmarks.reporting.files import Document

ENGINE = "engine"
PROVIDERS = ("cpu", "cuda")
MAX_IMAGE_DIFFERENCE_LEVELS = 8.0
"""Of lossy pictures to the exact ones, mean over all bytes; more means that another picture came."""

_INDICES_A_ROUND = 2**32
_START_TIMEOUT_S = 600.0
_ROUND_SLACK = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ThroughputSettings:
    """What to measure.

    Attributes:
        bundle: Folder of the bundle.
        engine: Name of the engine, for the engine alone and for the server.
        provider: What it runs on.
        rounds: Turns of each contender.
        seconds: Length of a turn without its warm-up, as the engine alone takes it.
        warmup_batches: Batches in front of each turn that are not timed.
        seed: Of the addresses.
    """

    bundle: Path
    engine: str = "onnxruntime"
    provider: str = "cpu"
    rounds: int = 7
    seconds: float = 10.0
    warmup_batches: int = 2
    seed: int = 1


@dataclass(kw_only=True, slots=True)
class Measured:
    """What was seen of one contender.

    Attributes:
        outcomes: One a round.
        num_checked: Samples whose bits were compared with the engine's.
        peak_rss_bytes: Most memory of its process.
        image_difference_levels: Of lossy pictures to the exact ones; None if they are exact.
    """

    outcomes: list[RoundOutcome] = field(default_factory=list)
    num_checked: int = 0
    peak_rss_bytes: int | None = None
    image_difference_levels: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What was seen of all.

    Attributes:
        description: Model, digest, numerics id, batch size.
        timed_batches: Batches of a turn that were timed.
        contenders: By name; the engine is the first.
        server_peak_rss_bytes: Most memory of the server.
    """

    description: Document
    timed_batches: int
    contenders: Mapping[str, Measured]
    server_peak_rss_bytes: int | None


def measure(settings: ThroughputSettings) -> Measurement:
    """Run the measurement; it says on standard error how far it is.

    Raises:
        ParityError: A stream gave other outputs than the engine alone.
        WorkerError: A process ended, failed or did not answer.
    """
    with ExitStack() as stack:
        runs_on = ["--provider", settings.provider]
        engine_arguments = ["--bundle", str(settings.bundle.resolve()), "--engine", settings.engine, *runs_on]
        engine = stack.enter_context(
            Worker("benchmarks.contenders.engine", engine_arguments, timeout_s=_START_TIMEOUT_S)
        )
        server = stack.enter_context(
            ServerProcess(settings.bundle, engine=settings.engine, timeout_s=_START_TIMEOUT_S, flags=runs_on)
        )
        workers = {ENGINE: engine}
        for encoding in ENCODINGS:
            arguments = ["--address", server.address, "--model", engine.description["model"], "--encoding", encoding]
            arguments += ["--batch-size", str(engine.description["batch_size"])]
            worker = Worker("benchmarks.contenders.stream", arguments, timeout_s=_START_TIMEOUT_S)
            workers[f"grpc_{encoding}"] = stack.enter_context(worker)
        for name, worker in workers.items():
            _check_same_numerics(engine.description, worker.description, name)
        turns = _Turns(settings, workers)
        turns.calibrate()
        turns.compare_images()
        for number in range(settings.rounds):
            turns.run_round(number)
        return Measurement(
            description=engine.description,
            timed_batches=turns.timed_batches,
            contenders=turns.measured,
            server_peak_rss_bytes=server.peak_rss_bytes(),
        )


class _Turns:
    """The turns of all contenders.

    Args:
        settings: What to measure.
        workers: By name; the engine is the first.
    """

    def __init__(self, settings: ThroughputSettings, workers: Mapping[str, Worker]) -> None:
        self._settings = settings
        self._workers = workers
        self._timeout_s = _START_TIMEOUT_S
        self.timed_batches = 2
        self.measured = {name: Measured() for name in workers}

    def calibrate(self) -> None:
        """Find how many batches the engine makes in the time of a turn."""
        outcome = RoundOutcome.from_answer(
            self._workers[ENGINE].ask(self._round(self._settings.rounds).request(), timeout_s=self._timeout_s)
        )
        batch_s = outcome.total_ns / len(outcome.batch_ns) / 1e9
        self.timed_batches = max(2, math.ceil(self._settings.seconds / batch_s))
        num_batches = self._settings.warmup_batches + self.timed_batches + LEAD_OUT_BATCHES
        self._timeout_s = 120.0 + _ROUND_SLACK * batch_s * num_batches
        _say(f"one batch takes the engine {batch_s * 1e3:.1f} ms; {self.timed_batches} batches a turn")

    def compare_images(self) -> None:
        """Compare lossy pictures with the exact ones.

        Raises:
            ParityError: They are other pictures.
        """
        sample = Round(seed=self._settings.seed, start_index=0, warmup_batches=1, timed_batches=1)
        for encoding in (name for name, encoding in ENCODINGS.items() if not encoding.is_lossless):
            name = f"grpc_{encoding}"
            request = {**sample.request(), "operation": "image_difference"}
            levels = float(self._workers[name].ask(request, timeout_s=self._timeout_s)["levels"])
            if not levels <= MAX_IMAGE_DIFFERENCE_LEVELS:
                raise ParityError(
                    f"{name}: pictures differ by {levels:.2f} levels from the exact ones, expected at most "
                    f"{MAX_IMAGE_DIFFERENCE_LEVELS:g}; look at the encoder",
                    field="image",
                )
            self.measured[name].image_difference_levels = levels

    def run_round(self, number: int) -> None:
        """Let each contender have its turn, the first one another each time, and compare their outputs.

        Raises:
            ParityError: A stream gave other outputs than the engine alone.
        """
        wanted = self._round(number)
        outcomes = {}
        for name in self._order(number):
            answer = self._workers[name].ask(wanted.request(), timeout_s=self._timeout_s)
            outcomes[name] = RoundOutcome.from_answer(answer)
            self.measured[name].peak_rss_bytes = answer["peak_rss_bytes"]
        reference = outcomes[ENGINE].digests
        for name, outcome in outcomes.items():
            self.measured[name].outcomes.append(outcome)
            if name != ENGINE:
                checked = check_parity(reference, outcome.digests, name=name, start_index=wanted.start_index)
                self.measured[name].num_checked += checked
        ratios = ", ".join(
            f"{name} {outcomes[ENGINE].total_ns / outcome.total_ns:.3f}"
            for name, outcome in outcomes.items()
            if name != ENGINE
        )
        _say(f"round {number + 1} of {self._settings.rounds}: speed relative to the engine alone: {ratios}")

    def _round(self, number: int) -> Round:
        return Round(
            seed=self._settings.seed,
            start_index=number * _INDICES_A_ROUND,
            warmup_batches=self._settings.warmup_batches,
            timed_batches=self.timed_batches,
        )

    def _order(self, number: int) -> Iterator[str]:
        names = list(self._workers)
        for place in range(len(names)):
            yield names[(place + number) % len(names)]


def _check_same_numerics(engine: Document, other: Document, name: str) -> None:
    for key in ("digest", "numerics_id"):
        if other[key] != engine[key]:
            raise ParityError(
                f"{name} has {key} {other[key]}, the engine alone {engine[key]}; let both run the same bundle "
                "in the same environment",
                field=key,
            )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
