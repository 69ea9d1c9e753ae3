"""What the GPU kernels of service/kernel/interpreter_gpu.py are launched with, for one interpreter and batch.

A plan names tables, buffers and launches; whoever runs it (the driver, or Triton's interpreter in the tests) puts
pointers in the place of names.

N pictures, H = W label resolution, q = H / 4, U hidden units of all members, each padded to H1, F fine channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from labelmint_service.engine.fused.packing import padded
from labelmint_service.engine.fused.weights import VOTE_RULES, Floats, InterpreterWeights, MemberWeights

TILE_ROWS = 8
TILE_COLUMNS = 16
_LEAST_WIDTH = 16
_PROJECT: Mapping[str, int] = MappingProxyType({"PIXELS": 64, "UNITS": 64, "CHANNELS": 32})
_MERGE: Mapping[str, int] = MappingProxyType({"POINTS": 32, "UNITS": 64})
_RAISE: Mapping[str, int] = MappingProxyType({"PIXELS": 64, "CHANNELS": 32})
_FINE_STEP = 32

Argument: TypeAlias = str | int
"""The name of a table, buffer or input, or a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Memory on the device.

    Attributes:
        shape: Its sizes.
        dtype: "half" for the dtype of the products, else a name of numpy.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One kernel.

    Attributes:
        kernel: Its name.
        grid: Programs along three axes.
        arguments: In the kernel's order.
        constants: What it was compiled with, by name.
    """

    kernel: str
    grid: tuple[int, int, int]
    arguments: tuple[Argument, ...]
    constants: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPlan:
    """All of a batch.

    Attributes:
        half_tables: Name -> float32 array, to be rounded to the dtype of the products.
        tables: Name -> float32 array, used as it is.
        buffers: Name -> what to allocate; `labels`, `divergence` and `heat` are the results.
        launches: In order.
    """

    half_tables: Mapping[str, Floats]
    tables: Mapping[str, Floats]
    buffers: Mapping[str, Buffer]
    launches: tuple[Launch, ...]


def make_plan(weights: InterpreterWeights, num_pictures: int) -> GpuPlan:
    """Plan the labels of a batch.

    Args:
        weights: Of the interpreter.
        num_pictures: N. Inputs are named "tap_r{r}", contiguous [N, C_r, r, r].

    Raises:
        ValueError: The levels are none that the kernels know.
    """
    return _Planner(weights, num_pictures).plan()


def power_of_two(value: int) -> int:
    """The next power of two, and at least as much as a product of matrices takes."""
    return max(_LEAST_WIDTH, 1 << (value - 1).bit_length())


class _Planner:
    def __init__(self, weights: InterpreterWeights, num_pictures: int) -> None:
        self._weights = weights
        self._num = num_pictures
        self._size = weights.size
        self._quarter = weights.size // 4
        if self._size % 4 or any(self._size % r and r % self._size for r in weights.levels):
            raise ValueError(f"levels {sorted(weights.levels)} do not fit a label resolution of {self._size}")
        self._coarse = [r for r in weights.levels if r <= self._quarter]
        self._fine = [r for r in weights.levels if r > self._quarter]
        self._ensembles = [weights.classifiers, *([weights.regressors] if weights.regressors else [])]
        self._widths = [power_of_two(ensemble.width1) for ensemble in self._ensembles]
        self._units = sum(e.num_members * width for e, width in zip(self._ensembles, self._widths, strict=True))
        self._area = max(sum(r * r for r in self._coarse), 1)
        channels = sum(weights.levels[r].shape[1] for r in self._fine)
        self._fine_channels = -(-max(channels, 1) // _FINE_STEP) * _FINE_STEP
        self._has_quarter = self._quarter in self._coarse

    def plan(self) -> GpuPlan:
        num, size, side = self._num, self._size, self._quarter + 1
        buffers = {
            "planes": Buffer(shape=(num, self._area, self._units), dtype="half"),
            "grid": Buffer(shape=(num, side * side, self._units), dtype="half"),
            "fine": Buffer(shape=(num, size * size, self._fine_channels), dtype="half"),
            "labels": Buffer(shape=(num, size, size), dtype="uint8"),
            "divergence": Buffer(shape=(num, size, size), dtype="float32"),
        }
        if self._weights.regressors is not None:
            points = self._weights.regressors.weight3.shape[1]
            buffers["heat"] = Buffer(shape=(num, points, size, size), dtype="float32")
        half_tables, tables = self._tables()
        launches = (*self._coarse_launches(), *self._raise_launches(), *self._label_launches())
        return GpuPlan(half_tables=half_tables, tables=tables, buffers=buffers, launches=launches)

    def _tables(self) -> tuple[dict[str, Floats], dict[str, Floats]]:
        weights = self._weights
        half = {f"project_r{r}": np.ascontiguousarray(self._spread(weights.levels[r]).T) for r in self._coarse}
        fine = [self._spread(weights.levels[r]) for r in self._fine] or [np.zeros((self._units, 1), np.float32)]
        half["weight1"] = np.ascontiguousarray(padded(np.concatenate(fine, axis=1), 1, _FINE_STEP).T)
        tables = {"bias1": self._spread(weights.bias1)}
        for name, ensemble, width in zip(("class", "point"), self._ensembles, self._widths, strict=False):
            width2, outputs = (power_of_two(n) for n in (ensemble.weight2.shape[1], ensemble.weight3.shape[1]))
            weight2 = padded(padded(ensemble.weight2, 1, width2), 2, width)  # [M, H2, H1]
            weight3 = padded(padded(ensemble.weight3, 1, outputs), 2, width2)  # [M, K, H2]
            half[f"{name}_weight2"] = np.ascontiguousarray(weight2.transpose(0, 2, 1))
            half[f"{name}_weight3"] = np.ascontiguousarray(weight3.transpose(0, 2, 1))
            tables[f"{name}_bias2"] = padded(ensemble.bias2, 1, width2)
            tables[f"{name}_bias3"] = padded(ensemble.bias3, 1, outputs)
        return half, tables

    def _spread(self, table: Floats) -> Floats:
        """Rows of all units, [U, ...], with each member's padded to H1."""
        parts, start = [], 0
        for ensemble, width in zip(self._ensembles, self._widths, strict=True):
            count = ensemble.num_members * ensemble.width1
            rows = table[start : start + count].reshape(ensemble.num_members, ensemble.width1, *table.shape[1:])
            parts.append(padded(rows, 1, width).reshape(-1, *table.shape[1:]))
            start += count
        return np.concatenate(parts)

    def _coarse_launches(self) -> list[Launch]:
        launches, first = [], 0
        for r in self._coarse:
            grid = (-(-r * r // _PROJECT["PIXELS"]), -(-self._units // _PROJECT["UNITS"]), self._num)
            channels = self._weights.levels[r].shape[1]
            numbers = (channels, r * r, self._units, first, self._area)
            names = (f"tap_r{r}", f"project_r{r}", "planes")
            launches.append(Launch(kernel="project", grid=grid, arguments=(*names, *numbers), constants=_PROJECT))
            first += r * r
        below = [r for r in self._coarse if r < self._quarter]
        coarsest = below[0] if below else max(self._quarter, 1)
        levels = {r: (r // coarsest).bit_length() - 1 for r in below}
        side = self._quarter + 1
        constants = {
            "QUARTER": self._quarter,
            "COARSEST": coarsest,
            "PRESENT": sum(1 << level for level in levels.values()),
            "NUM_LEVELS": max(levels.values()) + 1 if levels else 0,
            **_MERGE,
        }
        grid = (-(-side * side // _MERGE["POINTS"]), -(-self._units // _MERGE["UNITS"]), self._num)
        arguments = ("planes", "bias1", "grid", self._units, self._area)
        launches.append(Launch(kernel="merge", grid=grid, arguments=arguments, constants=constants))
        return launches

    def _raise_launches(self) -> list[Launch]:
        launches, first = [], 0
        for r in self._fine:
            channels = self._weights.levels[r].shape[1]
            # The last level also writes the channels of the padding: they are multiplied, if only by zeros.
            written = channels if r != self._fine[-1] else self._fine_channels - first
            grid = (-(-(self._size**2) // _RAISE["PIXELS"]), -(-written // _RAISE["CHANNELS"]), self._num)
            arguments = (f"tap_r{r}", "fine", channels, first, self._fine_channels)
            constants = {"RESOLUTION": r, "SIZE": self._size, **_RAISE}
            launches.append(Launch(kernel="raise_fine", grid=grid, arguments=arguments, constants=constants))
            first += channels
        return launches

    def _label_launches(self) -> list[Launch]:
        size = self._size
        first_of_quarter = sum(r * r for r in self._coarse if r < self._quarter)
        places = (self._units, first_of_quarter, self._area)
        grid = (-(-size // TILE_COLUMNS), -(-size // TILE_ROWS), self._num)
        common = {
            "SIZE": size,
            "HAS_QUARTER": int(self._has_quarter),
            "FINE": self._fine_channels if self._fine else 0,
            "FINE_STEP": _FINE_STEP,
        }
        tile = {"ROWS": TILE_ROWS, "COLUMNS": TILE_COLUMNS}
        classifiers = self._weights.classifiers
        launches = [
            Launch(
                kernel="label",
                grid=grid,
                arguments=("grid", "planes", "fine", *_names("class"), "labels", "divergence", *places, 0),
                constants={
                    **common,
                    **_shape(classifiers, self._widths[0]),
                    "CLASSES": classifiers.weight3.shape[1],
                    "OUTPUTS": power_of_two(classifiers.weight3.shape[1]),
                    "RULE": VOTE_RULES.index(self._weights.vote_rule),
                    **tile,
                },
            )
        ]
        regressors = self._weights.regressors
        if regressors is not None:
            first_unit = classifiers.num_members * self._widths[0]
            launches.append(
                Launch(
                    kernel="heatmaps",
                    grid=grid,
                    arguments=("grid", "planes", "fine", *_names("point"), "heat", first_unit, *places),
                    constants={
                        **common,
                        **_shape(regressors, self._widths[1]),
                        "POINTS": regressors.weight3.shape[1],
                        "OUTPUTS": power_of_two(regressors.weight3.shape[1]),
                        **tile,
                    },
                )
            )
        return launches


def _names(ensemble: str) -> tuple[str, ...]:
    return ("weight1", *(f"{ensemble}_{name}" for name in ("weight2", "bias2", "weight3", "bias3")))


def _shape(members: MemberWeights, width1: int) -> dict[str, int]:
    return {"MEMBERS": members.num_members, "H1": width1, "H2": power_of_two(members.weight2.shape[1])}
