"""What a target is: one way to write the model for an engine, and to run what was written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from labelmint_export.bundle.quantiles import RunModel
from labelmint_export.precision import PRECISIONS, Precision
from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.settings import TargetSettings

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What is worth recording about a target beyond its files."""

    versions: Mapping[str, str]
    """Package -> version that wrote it or that must read it."""
    device: Mapping[str, object] = field(default_factory=dict)
    """What it was built for; empty if for any device."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Else, such as the ONNX opset."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Engine:
    """A target that was loaded and can be run."""

    run: RunModel
    """Feeds of the graph -> its outputs by name."""
    computes: str
    """How this engine computes on this device, for the report."""
    rounds: bool
    """Whether its feature maps are rounded to the target's precision here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One way to write the model."""

    name: str
    """As the command line has it."""
    summary: str
    """One line for the help."""
    write: Callable[[TargetModel, TargetSettings, Path], Written]
    """Write all files into an empty folder; raises BuildError, naming what is missing, where the tools are."""
    load: Callable[[Path, TargetModel, Device], Engine]
    """Load what was written; the model says what it was written from. Raises CannotRunError."""
    precisions: tuple[Precision, ...] = PRECISIONS
