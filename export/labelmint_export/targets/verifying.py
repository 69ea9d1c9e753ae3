"""Does a target compute what was trained? Each engine against the float64 reference, on the same addresses."""

import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmint.bundle import Bundle
from labelmint_export.bundle.parity import reference_outputs
from labelmint_export.bundle.quantiles import calibrated_psis, make_feeds
from labelmint_export.bundle.runtime import Arrays
from labelmint_export.bundle.settings import find_precision
from labelmint_export.errors import BuildError, CannotRunError, ExportError
from labelmint_export.generator import Backbone
from labelmint_export.interpreter.ensemble import Interpreter
from labelmint_export.precision import PRECISIONS, TOLERANCES, Precision
from labelmint_export.reserved_seeds import ENGINES_SEED
from labelmint_export.targets.comparing import Check, Comparison
from labelmint_export.targets.deployed import TargetModel, make_target_model
from labelmint_export.targets.emulation import emulate
from labelmint_export.targets.onnx_target import load_onnx
from labelmint_export.targets.protocol import Device, Engine
from labelmint_export.targets.record import RECORD_NAME, TargetRecord, read_record
from labelmint_export.targets.registry import find_target

BUNDLE_ENGINE = "bundle"
EMULATION_PREFIX = "emulated-"
EMULATED: dict[str, Precision] = {f"{EMULATION_PREFIX}{precision}": precision for precision in PRECISIONS}


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineReport:
    """What was seen of one engine."""

    engine: str
    """The bundle itself, a target's name, or an emulation."""
    precision: Precision
    """Of its feature maps."""
    computes: str
    """How it computes on this device, or why it does not run here."""
    rounds: bool
    """Whether its feature maps are rounded to its precision on this device."""
    checks: tuple[Check, ...]
    """Empty if it did not run."""
    seconds_per_sample: float
    """Of the runs compared; no benchmark."""

    @property
    def ran(self) -> bool:
        """Whether it ran on this device."""
        return bool(self.checks)

    @property
    def holds(self) -> bool:
        """Whether it ran and every tolerance is kept."""
        return self.ran and all(check.holds for check in self.checks)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Candidate:
    """An engine to look at."""

    name: str
    precision: Precision
    record: TargetRecord | None = None


@contextlib.contextmanager
def _naming(engine: str) -> Iterator[None]:
    """Say which engine failed."""
    try:
        yield
    except (ExportError, MemoryError):
        raise
    except Exception as error:  # the errors of all engines share no other base class
        raise BuildError(
            f"engine {engine} fails ({type(error).__name__}: {error}); export it anew, with the versions that are "
            "installed here",
            field="engine",
        ) from error


def list_engines(targets: Path | None) -> list[str]:
    """Names of all engines there are: the bundle's graph and every target in the folder.

    Raises:
        BuildError: The folder is none, or holds no target.
    """
    if targets is None:
        return [BUNDLE_ENGINE]
    found = sorted(path.parent.name for path in targets.glob(f"*/{RECORD_NAME}"))
    if not found:
        raise BuildError(
            f"targets is {targets}, expected a folder that `labelmint-export export` wrote", field="targets"
        )
    return [BUNDLE_ENGINE, *found]


class EngineVerification:
    """Compares engines of one bundle with the float64 reference, which is computed once.

    Args:
        bundle: What the engines belong to.
        generator: What it was built from.
        interpreter: Likewise.
        targets: Folder that `export` wrote; None if only the bundle and emulations are looked at.
        num_samples: Addresses that are compared.
        device: Where engines run.

    Raises:
        BuildError: num_samples is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        generator: Backbone,
        interpreter: Interpreter,
        *,
        targets: Path | None = None,
        num_samples: int = 8,
        device: Device = "cpu",
    ) -> None:
        if num_samples < 1:
            raise BuildError(f"num_samples is {num_samples}, expected at least 1", field="num_samples")
        self._bundle, self._manifest = bundle, bundle.manifest
        self._generator, self._interpreter = generator, interpreter
        self._targets, self._device = targets, device
        self._models: dict[Precision, TargetModel] = {}
        self._batches = self._make_batches(num_samples)
        self._expected: list[Arrays] = []

    def compare(self, names: Sequence[str]) -> list[EngineReport]:
        """Look at engines, in the order given.

        Args:
            names: "bundle", "emulated-PRECISION", or a target's folder. After a half-precision target that this device
                does not round to half, its emulation on the CPU is looked at too.

        Returns:
            One report an engine.

        Raises:
            BuildError: An engine is unknown, altered, or belongs to another bundle, or fails where it should run; or an
                emulation is asked for on another device than the CPU, or none of the engines runs there.
        """
        queue = [self._find(name) for name in dict.fromkeys(names)]
        seen, reports = set(), []
        while queue:
            candidate = queue.pop(0)
            if candidate.name in seen:
                continue
            seen.add(candidate.name)
            report = self._look_at(candidate)
            reports.append(report)
            if not report.rounds and candidate.precision != "float32":
                emulation = f"{EMULATION_PREFIX}{candidate.precision}"
                queue.append(_Candidate(name=emulation, precision=candidate.precision))
        if self._device != "cpu" and not any(report.ran for report in reports if report.engine not in EMULATED):
            reasons = "; ".join(f"{report.engine}: {report.computes}" for report in reports if not report.ran)
            raise BuildError(f"device is {self._device}, where no engine runs here ({reasons})", field="device")
        return reports

    def _find(self, name: str) -> _Candidate:
        if name == BUNDLE_ENGINE:
            return _Candidate(name=name, precision=find_precision(self._manifest.precision))
        if name in EMULATED:
            if self._device != "cpu":
                raise BuildError(
                    f"engine is {name} and device is {self._device}, expected cpu: an emulation computes on the CPU; "
                    "compare it in a run of its own, without --device",
                    field="device",
                )
            return _Candidate(name=name, precision=EMULATED[name])
        if self._targets is None or name not in list_engines(self._targets):
            raise BuildError(
                f"engine is {name!r}, expected one of {[*list_engines(self._targets), *EMULATED]}; write it with "
                "`labelmint-export export` and give its folder as --targets",
                field="engine",
            )
        record = read_record(self._targets / name)
        if record.bundle_digest != self._bundle.digest:
            raise BuildError(
                f"engine {name} belongs to bundle {record.bundle_digest}, not to {self._bundle.digest}; export it anew",
                field="engine",
            )
        return _Candidate(name=name, precision=record.precision, record=record)

    def _look_at(self, candidate: _Candidate) -> EngineReport:
        try:
            with _naming(candidate.name):
                engine = self._load(candidate)
        except CannotRunError as error:
            return EngineReport(
                engine=candidate.name,
                precision=candidate.precision,
                computes=f"not run: {error}",
                rounds=False,
                checks=(),
                seconds_per_sample=0.0,
            )
        comparison, seconds = Comparison(), 0.0
        for feeds, expected in zip(self._batches, self._reference(), strict=True):
            with _naming(candidate.name):
                start = time.perf_counter()
                got = engine.run(feeds)
                seconds += time.perf_counter() - start
                comparison.add(expected, got)
        tolerances = TOLERANCES[candidate.precision] if candidate.record is None else candidate.record.tolerances
        return EngineReport(
            engine=candidate.name,
            precision=candidate.precision,
            computes=engine.computes,
            rounds=engine.rounds,
            checks=tuple(comparison.checks(tolerances)),
            seconds_per_sample=seconds / comparison.num_samples,
        )

    def _load(self, candidate: _Candidate) -> Engine:
        if candidate.name == BUNDLE_ENGINE:
            path = self._bundle.path_of(self._manifest.graphs.model)
            return load_onnx(path, candidate.precision, self._device, self._manifest.runtime.onnxruntime)
        model = self._model(candidate.precision)
        if candidate.record is None:
            return emulate(model)
        target = find_target(candidate.record.target, candidate.precision)
        return target.load(candidate.record.folder, model, self._device)

    def _model(self, precision: Precision) -> TargetModel:
        if precision not in self._models:
            self._models[precision] = make_target_model(self._generator, self._interpreter, self._manifest, precision)
        return self._models[precision]

    def _make_batches(self, num_samples: int) -> list[dict[str, npt.NDArray[np.float32]]]:
        """Addresses, in the batches of the bundle's runtime, at each calibrated truncation in turn."""
        manifest, size = self._manifest, self._manifest.runtime.batch_size
        psis = calibrated_psis(manifest)
        batches = []
        for number, start in enumerate(range(0, num_samples, size)):
            indices = np.arange(start, min(start + size, num_samples), dtype=np.uint64)
            psi, classes = psis[number % len(psis)], list(manifest.class_distribution)
            batches.append(make_feeds(manifest.backbone, ENGINES_SEED, indices, psi, None, classes))
        return batches

    def _reference(self) -> list[Arrays]:
        """Outputs by the reference algorithm in float64, one image at a time, for every batch."""
        if not self._expected:
            generator = copy.deepcopy(self._generator).double()
            interpreter = copy.deepcopy(self._interpreter).double()
            for feeds in self._batches:
                rows = []
                for row in range(len(feeds["z"])):
                    one = {name: array[row : row + 1] for name, array in feeds.items()}
                    rows.append(reference_outputs(generator, interpreter, self._manifest, one)[0])
                self._expected.append({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
        return self._expected
