"""What the GPU kernels of service/kernel/interpreter_gpu.py are launched with, for one interpreter, frame and batch.

A plan names tables, buffers and launches; whoever runs it puts addresses in the place of names.

N pictures, H = W label resolution, q = H / 4, U hidden units of all members, each padded to H1, F fine channels, h x w
the frame, K keypoints.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from labelmint.graphs import VOTE_RULES, stack_name
from labelmint.scores import NUM_BINS
from labelmint_service.engine.fused.bundles import LabelFrame
from labelmint_service.engine.fused.gpu import forms
from labelmint_service.engine.fused.gpu.forms import FINE_STEP, TILE_COLUMNS, TILE_ROWS, Form
from labelmint_service.engine.fused.packing import pad_units, padded
from labelmint_service.engine.fused.weights import Floats, InterpreterWeights

PEAK_VALUES = 8
RESULTS = ("label_frame", "map_frame", "counts", "places", "values")
"""Buffers that leave the device; `places` and `values` only of a model with keypoints."""

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
        form: Which binary.
        grid: Programs along three axes.
        arguments: In the order of `forms.parameters_of`.
    """

    form: Form
    grid: tuple[int, int, int]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPlan:
    """All of a batch.

    Attributes:
        half_tables: Name -> float32 array, to be rounded to the dtype of the products.
        tables: Name -> float32 array, used as it is.
        inputs: Name -> what the synthesis graph writes.
        buffers: Name -> what to allocate; those of `RESULTS` are the results, and `counts` must be zero before.
        launches: In order.
    """

    half_tables: Mapping[str, Floats]
    tables: Mapping[str, Floats]
    inputs: Mapping[str, Buffer]
    buffers: Mapping[str, Buffer]
    launches: tuple[Launch, ...]


def make_plan(
    weights: InterpreterWeights, num_pictures: int, frame: LabelFrame, *, tap_dtype: str = "float32"
) -> GpuPlan:
    """Plan the labels of a batch.

    Args:
        weights: Of the interpreter.
        num_pictures: N. Inputs are named by `labelmint.graphs.stack_name`, contiguous [N, C_r, r, r].
        frame: What is delivered.
        tap_dtype: Of the inputs, a key of `forms.TAP_TYPES`.

    Raises:
        ValueError: The levels or members are none that the kernels know.
    """
    return _Planner(weights, num_pictures, frame, tap_dtype).plan()


class _Planner:
    def __init__(self, weights: InterpreterWeights, num_pictures: int, frame: LabelFrame, tap_dtype: str) -> None:
        self._weights = weights
        self._num = num_pictures
        self._frame = frame
        self._tap_dtype = tap_dtype
        self._size = weights.size
        self._quarter = weights.size // 4
        if any(r % 2 for r in weights.levels):
            raise ValueError(f"levels are {sorted(weights.levels)}, expected even ones")
        if tap_dtype not in forms.TAP_TYPES:
            raise ValueError(f"taps are {tap_dtype}, expected one of {', '.join(forms.TAP_TYPES)}")
        self._coarse = [r for r in weights.levels if r <= self._quarter]
        self._fine = [r for r in weights.levels if r > self._quarter]
        self._ensembles = weights.ensembles
        channels = sum(weights.levels[r].shape[1] for r in self._fine)
        self._fine_channels = -(-max(channels, 1) // FINE_STEP) * FINE_STEP
        fine_steps = self._fine_channels // FINE_STEP if self._fine else 0
        self._forms = [
            forms.fit_form(kernel, members.width1, members.weight2.shape[1], members.weight3.shape[1], fine_steps)
            for kernel, members in zip(("label", "heatmaps"), self._ensembles, strict=False)
        ]
        self._widths = [form.constants["H1"] for form in self._forms]
        self._units = sum(e.num_members * width for e, width in zip(self._ensembles, self._widths, strict=True))
        # The level of q always has a plane, which is zero without taps.
        self._area = sum(r * r for r in {*self._coarse, self._quarter})
        # The highest point of a heatmap may lie outside the frame, but labels are wanted inside it alone.
        self._first_row = frame.top // TILE_ROWS * TILE_ROWS
        self._rows = frame.top + frame.height - self._first_row

    def plan(self) -> GpuPlan:
        num, size, side, frame = self._num, self._size, self._quarter + 1, self._frame
        buffers = {
            "planes": Buffer(shape=(num, self._area, self._units), dtype="half"),
            "grid": Buffer(shape=(num, side * side, self._units), dtype="half"),
            "fine": Buffer(shape=(num, size * size, self._fine_channels), dtype="half"),
            "labels": Buffer(shape=(num, size, size), dtype="uint8"),
            "divergence": Buffer(shape=(num, size, size), dtype="float32"),
            "label_frame": Buffer(shape=(num, frame.height, frame.width), dtype="uint8"),
            "map_frame": Buffer(shape=(num, frame.height, frame.width), dtype="float16"),
            "counts": Buffer(shape=(num, NUM_BINS + 1), dtype="int32"),
        }
        if self._weights.regressors is not None:
            points = self._weights.regressors.weight3.shape[1]
            buffers["heat"] = Buffer(shape=(num, points, size, size), dtype="float32")
            buffers["places"] = Buffer(shape=(num, points), dtype="int32")
            buffers["values"] = Buffer(shape=(num, points, PEAK_VALUES), dtype="float32")
        half_tables, tables = self._tables()
        inputs = {
            stack_name(r): Buffer(shape=(num, table.shape[1], r, r), dtype=self._tap_dtype)
            for r, table in self._weights.levels.items()
        }
        launches = (
            *self._coarse_launches(),
            *self._raise_launches(),
            self._label_launch(),
            *([self._heat_launch()] if self._weights.regressors is not None else []),
            *self._last_launches(),
        )
        return GpuPlan(half_tables=half_tables, tables=tables, inputs=inputs, buffers=buffers, launches=launches)

    def _tables(self) -> tuple[dict[str, Floats], dict[str, Floats]]:
        weights = self._weights
        spread = functools.partial(pad_units, ensembles=self._ensembles, multiples=self._widths)
        half = {f"project_r{r}": np.ascontiguousarray(spread(weights.levels[r]).T) for r in self._coarse}
        fine = [spread(weights.levels[r]) for r in self._fine] or [np.zeros((self._units, 1), np.float32)]
        half["weight1"] = np.ascontiguousarray(padded(np.concatenate(fine, axis=1), 1, FINE_STEP).T)
        tables = {"bias1": spread(weights.bias1)}
        for name, ensemble, form in zip(("class", "point"), self._ensembles, self._forms, strict=False):
            width1, width2, outputs = (form.constants[constant] for constant in ("H1", "H2", "OUTPUTS"))
            weight2 = padded(padded(ensemble.weight2, 1, width2), 2, width1)  # [M, H2, H1]
            weight3 = padded(padded(ensemble.weight3, 1, outputs), 2, width2)  # [M, K, H2]
            half[f"{name}_weight2"] = np.ascontiguousarray(weight2.transpose(0, 2, 1))
            half[f"{name}_weight3"] = np.ascontiguousarray(weight3.transpose(0, 2, 1))
            tables[f"{name}_bias2"] = padded(ensemble.bias2, 1, width2)
            tables[f"{name}_bias3"] = padded(ensemble.bias3, 1, outputs)
        return half, tables

    def _coarse_launches(self) -> list[Launch]:
        form = forms.with_taps(forms.PROJECT, self._tap_dtype)
        launches, first = [], 0
        for r in sorted({*self._coarse, self._quarter}):
            grid = (_parts(r * r, form.constants["PIXELS"]), _parts(self._units, form.constants["UNITS"]), self._num)
            if r in self._coarse:
                names, channels = (stack_name(r), f"project_r{r}"), self._weights.levels[r].shape[1]
            else:
                names, channels = (stack_name(next(iter(self._weights.levels))), "weight1"), 0
            numbers = (channels, r * r, self._units, first, self._area)
            launches.append(Launch(form=form, grid=grid, arguments=(*names, "planes", *numbers)))
            first += r * r
        below = [r for r in self._coarse if r < self._quarter]
        coarsest = below[0] if below else max(self._quarter, 1)
        levels = [(r // coarsest).bit_length() - 1 for r in below]
        sizes = (self._quarter, coarsest, sum(1 << level for level in levels), max(levels) + 1 if levels else 0)
        form, points = forms.MERGE, (self._quarter + 1) ** 2
        grid = (_parts(points, form.constants["POINTS"]), _parts(self._units, form.constants["UNITS"]), self._num)
        arguments = ("planes", "bias1", "grid", self._units, self._area, *sizes)
        return [*launches, Launch(form=form, grid=grid, arguments=arguments)]

    def _raise_launches(self) -> list[Launch]:
        form = forms.with_taps(forms.RAISE, self._tap_dtype)
        launches, first = [], 0
        blocks = _parts(self._size, form.constants["COLUMNS"])
        everywhere = self._weights.regressors is not None
        first_row, num_rows = (0, self._size) if everywhere else (self._first_row, self._rows)
        for r in self._fine:
            channels = self._weights.levels[r].shape[1]
            # The last level also writes the channels of the padding: they are multiplied, if only by zeros.
            written = channels if r != self._fine[-1] else self._fine_channels - first
            grid = (num_rows * blocks, _parts(written, form.constants["CHANNELS"]), self._num)
            numbers = (channels, first, self._fine_channels, r, self._size, first_row, blocks)
            launches.append(Launch(form=form, grid=grid, arguments=(stack_name(r), "fine", *numbers)))
            first += channels
        return launches

    def _places(self) -> tuple[int, int, int]:
        return (self._units, sum(r * r for r in self._coarse if r < self._quarter), self._area)

    def _picture(self, members: int) -> tuple[int, int, int]:
        return (self._size, self._fine_channels if self._fine else 0, members)

    def _label_launch(self) -> Launch:
        members = self._weights.classifiers
        grid = (_parts(self._size, TILE_COLUMNS), _parts(self._rows, TILE_ROWS), self._num)
        picture = self._picture(members.num_members)
        numbers = (*self._places(), self._first_row, *picture, members.weight3.shape[1])
        rule = VOTE_RULES.index(self._weights.vote_rule)
        names = ("grid", "planes", "fine", *_names("class"), "labels", "divergence")
        return Launch(form=self._forms[0], grid=grid, arguments=(*names, *numbers, rule))

    def _heat_launch(self) -> Launch:
        members = self._weights.regressors
        assert members is not None
        first_unit = self._weights.classifiers.num_members * self._widths[0]
        grid = (_parts(self._size, TILE_COLUMNS), _parts(self._size, TILE_ROWS), self._num)
        numbers = (first_unit, *self._places(), *self._picture(members.num_members), members.weight3.shape[1])
        names = ("grid", "planes", "fine", *_names("point"), "heat")
        return Launch(form=self._forms[1], grid=grid, arguments=(*names, *numbers))

    def _last_launches(self) -> list[Launch]:
        frame = self._frame
        grid = (_parts(self._size, forms.FINISH.constants["COLUMNS"]), self._rows, self._num)
        numbers = (self._size, self._first_row, frame.top, frame.left, frame.height, frame.width, NUM_BINS)
        names = ("labels", "divergence", "label_frame", "map_frame", "counts")
        launches = [Launch(form=forms.FINISH, grid=grid, arguments=(*names, *numbers))]
        if self._weights.regressors is not None:
            planes = self._num * self._weights.regressors.weight3.shape[1]
            arguments = ("heat", "places", "values", self._size)
            launches.append(Launch(form=forms.HIGHEST, grid=(planes, 1, 1), arguments=arguments))
        return launches


def _names(ensemble: str) -> tuple[str, ...]:
    return ("weight1", *(f"{ensemble}_{name}" for name in ("weight2", "bias2", "weight3", "bias3")))


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)
