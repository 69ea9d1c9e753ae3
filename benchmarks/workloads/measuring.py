"""Contenders of one workload, each in a process of its own, in turns; labels are compared before a time counts."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.errors import BenchmarkError, ParityError
from benchmarks.processes.worker import Worker
from benchmarks.reporting.files import Document
from benchmarks.workloads.answers import Labels, load_labels
from benchmarks.workloads.parts import write_bundle
from benchmarks.workloads.shapes import WORKLOADS
from labelmint_export.precision import Precision
from labelmint_service.settings import EMBEDDED_BUNDLE

CONTENDERS = ("reference", "compiled", "onnxruntime", "fused", "fused-cuda")
USUAL: Mapping[str, tuple[str, ...]] = {
    "cpu": ("reference", "onnxruntime", "fused"),
    "cuda": ("reference", "compiled", "fused-cuda"),
}
"""Contenders of a device, unless others are asked for."""
TORCH = ("reference", "compiled")
LEAST_AGREEMENT = 0.995
"""Share of labels in which a contender must agree with the first one."""
_TIMEOUT_S = 3600.0
_INDICES_A_ROUND = 2**32


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkloadSettings:
    """What to measure.

    Attributes:
        contenders: Some of `CONTENDERS`; labels are compared with those of the first.
        rounds: Turns of each contender.
        device: Where torch's contenders and `onnxruntime` work; `fused` and `fused-cuda` work where their names say.
        pictures: Of a turn of an engine, which fills them up to whole runs: it computes all rows of a run anyway.
        torch_pictures: Of a turn of torch's contenders.
        batch_size: Rows, of the bundles that are made; the embedded one has its own.
        precision: Of the bundles that are made; torch's contenders compute in float32.
        cache: Folder for the bundles.
        seed: Of the addresses.
        algorithms: How cuDNN computes for engines on a GPU.
    """

    contenders: Sequence[str] = USUAL["cpu"]
    device: str = "cpu"
    rounds: int = 3
    pictures: int = 4
    torch_pictures: int = 1
    batch_size: int = 1
    precision: Precision = "float32"
    cache: Path
    seed: int = 1
    algorithms: str = "fast"


@dataclass(kw_only=True, slots=True)
class Contender:
    """What was seen of one.

    Attributes:
        description: What its worker says of itself.
        turns_ns: Time of a picture in each run, a list a turn.
        stages_ns: Parts of it in each run, where the contender tells.
        peak_rss_bytes: Most memory of its process.
        peak_device_bytes: Most memory that it held on a GPU.
        label_agreement: With the first contender.
        divergence_error: Largest difference to the first contender's map, nats.
    """

    description: Document
    turns_ns: list[list[int]] = field(default_factory=list)
    stages_ns: list[Mapping[str, int]] = field(default_factory=list)
    peak_rss_bytes: int | None = None
    peak_device_bytes: int | None = None
    label_agreement: float = 1.0
    divergence_error: float = 0.0

    @property
    def runs_ns(self) -> list[int]:
        """Time of a picture in each run of all turns."""
        return [value for turn in self.turns_ns for value in turn]


def measure(name: str, settings: WorkloadSettings) -> dict[str, Contender]:
    """Run one workload; says on standard error how far it is.

    Raises:
        BenchmarkError: No contender can run it.
        ParityError: A contender labels otherwise.
        WorkerError: A process ended, failed or did not answer.
    """
    workload = WORKLOADS[name]
    contenders = [one for one in settings.contenders if workload.family or one not in TORCH]
    if not contenders:
        raise BenchmarkError(
            f"{name} can be run by engines alone, but the contenders are {', '.join(settings.contenders)}; name an "
            "engine too, or other workloads",
            field="contenders",
        )
    bundle = EMBEDDED_BUNDLE
    if workload.family and any(one not in TORCH for one in contenders):
        bundle = write_bundle(name, workload, settings.cache, settings.batch_size, settings.precision)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labelmint-bench-")))
        seen: dict[str, Contender] = {}
        truth: Labels | None = None
        workers = {}
        for one in contenders:
            workers[one] = stack.enter_context(_start(one, name, bundle, settings))
            seen[one] = Contender(description=workers[one].description)
            path = folder / f"{one}.npz"
            _ask(workers[one], {"seed": settings.seed, "first_index": 0, "count": 1, "labels": str(path)})
            labels = load_labels(path)
            truth = labels if truth is None else truth
            compare_labels(one, contenders[0], labels, truth, seen[one])
            _say(f"{name}: {one} labels {seen[one].label_agreement:.4%} as {contenders[0]} does")
        for number in range(settings.rounds):
            first = number % len(contenders)
            for one in contenders[first:] + contenders[:first]:
                _take_turn(workers[one], settings, one, number, seen[one])
            _say(f"{name}: round {number + 1} of {settings.rounds}")
        return seen


def _start(contender: str, workload: str, bundle: Path, settings: WorkloadSettings) -> Worker:
    if contender in TORCH:
        arguments = ["--workload", workload, "--device", settings.device]
        arguments += ["--compiled"] if contender == "compiled" else []
        return Worker("benchmarks.workloads.reference", arguments, timeout_s=_TIMEOUT_S)
    engine, _, provider = contender.partition("-")
    provider = settings.device if contender == "onnxruntime" else provider or "cpu"
    arguments = ["--bundle", str(bundle.resolve()), "--engine", engine, "--provider", provider]
    arguments += ["--algorithms", settings.algorithms]
    return Worker("benchmarks.workloads.engines", arguments, timeout_s=_TIMEOUT_S)


def _take_turn(worker: Worker, settings: WorkloadSettings, contender: str, number: int, seen: Contender) -> None:
    """Let a contender label the pictures of a turn, in whole runs."""
    rows = worker.description["batch_size"]
    wanted = settings.torch_pictures if contender in TORCH else settings.pictures
    first = 1 + number * _INDICES_A_ROUND
    count = -(-wanted // rows) * rows
    answer = _ask(worker, {"seed": settings.seed, "first_index": first, "count": count, "labels": ""})
    seen.turns_ns.append([run["total_ns"] for run in answer["runs"]])
    seen.stages_ns += [run["stages_ns"] for run in answer["runs"]]
    seen.peak_rss_bytes, seen.peak_device_bytes = answer["peak_rss_bytes"], answer["peak_device_bytes"]


def _ask(worker: Worker, request: Document) -> Document:
    return worker.ask(request, timeout_s=_TIMEOUT_S)


def compare_labels(one: str, first: str, labels: Labels, truth: Labels, seen: Contender) -> None:
    largest_share = np.bincount(truth[0].reshape(-1)).max() / truth[0].size
    if largest_share > 0.95:
        raise ParityError(f"{first} gives one class to {largest_share:.1%} of the pixels; the workload is degenerate")
    seen.label_agreement = float((labels[0] == truth[0]).mean())
    seen.divergence_error = float(np.abs(labels[1] - truth[1]).max())
    if seen.label_agreement < LEAST_AGREEMENT:
        raise ParityError(
            f"{one} gives {seen.label_agreement:.3%} of the labels of {first}, expected {LEAST_AGREEMENT:.1%} or more; "
            "its speed means nothing",
            field="label",
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
