"""Runs the compiled interpreter on the taps of a batch, with all threads on one picture at a time.

N pictures, C_r channels of all taps of resolution r, K keypoints, H = W label resolution.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint.graphs import VOTE_RULES
from labelmint_service.engine.fused.native import EnsembleStruct, PictureStruct, PlanStruct, Variant, load_library
from labelmint_service.engine.fused.packing import pack_floats, pack_words, pad_widths
from labelmint_service.engine.fused.weights import Floats, InterpreterWeights, MemberWeights

LEAST_AGREEMENT = 0.995
"""Share of labels in which what rounds more than the kernel in float32 has to agree with it."""
_GROUP = 64
_BANDS_OF_THREAD = 2
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelOutput:
    """Labelled pictures, in the frame before the crop.

    Attributes:
        label: uint8 [N, H, W].
        uncertainty: float32 [N, H, W], nats.
        heatmaps: float32 [N, K, H, W]; K is 0 without keypoints.
        finite: bool [N].
    """

    label: npt.NDArray[np.uint8]
    uncertainty: Floats
    heatmaps: Floats
    finite: npt.NDArray[np.bool_]


class InterpreterKernel:
    """The interpreter of one bundle, in one compiled form.

    Args:
        weights: Of the interpreter.
        variant: Form of the kernel.
        num_threads: Threads that share each picture; results do not depend on it.
    """

    def __init__(self, weights: InterpreterWeights, variant: Variant, num_threads: int) -> None:
        self._kept: list[npt.NDArray[Any]] = []  # Any: arrays of every dtype, alive as long as the plan points at them
        self._threads = num_threads
        self._size = weights.size
        self._num_classes = weights.classifiers.weight3.shape[1]
        self._num_keypoints = weights.regressors.weight3.shape[1] if weights.regressors else 0
        quarter = self._size // 4
        self._coarse = [r for r in weights.levels if r <= quarter]
        self._full = [r for r in weights.levels if r >= self._size]
        self._half = self._size // 2 if self._size // 2 in weights.levels else 0
        self._plan = self._make_plan(pad_widths(weights), variant)
        library = load_library()

        def function(name: str) -> Callable[..., Any]:  # Any: ctypes checks the arguments
            found: Callable[..., Any] = getattr(library, f"lm_{name}_{variant.name}")
            return found

        self._project, self._merge, self._rows = function("project"), function("merge"), function("rows")
        num_bytes = int(function("scratch_bytes")(self._plan))
        self._scratch: SimpleQueue[npt.NDArray[np.uint8]] = SimpleQueue()
        for _ in range(num_threads):
            self._scratch.put(_aligned(num_bytes))
        units, stride = int(self._plan.units), int(function("knot_stride")(self._plan))
        self._planes = [np.empty((r, units, r), dtype=np.float32) for r in self._coarse]
        self._knots = np.empty((quarter + 1, units, stride), dtype=np.float32)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="labelmint-kernel")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def run(self, stacks: Mapping[int, Floats], rows: range | None = None) -> KernelOutput:
        """Label pictures.

        Args:
            stacks: Resolution -> float32 [N, C_r, r, r], contiguous.
            rows: Rows that are wanted; all of them if not given. The rest of the output is zero.

        Raises:
            ValueError: A stack is missing or has another shape or dtype.
        """
        num = self._check(stacks)
        size = self._size
        rows = range(size) if rows is None else rows
        make = np.empty if len(rows) == size else np.zeros
        label = make((num, size, size), dtype=np.uint8)
        uncertainty = make((num, size, size), dtype=np.float32)
        heatmaps = make((num, self._num_keypoints, size, size), dtype=np.float32)
        finite = np.zeros(num, dtype=np.bool_)
        for n in range(num):
            picture = self._point_at(stacks, n, label, uncertainty, heatmaps)
            self._each(
                lambda part, scratch, picture=picture: self._project(self._plan, picture, *part, scratch),
                self._groups(),
            )
            self._each(
                lambda part, scratch, picture=picture: self._merge(self._plan, picture, *part, scratch),
                _split(range(int(self._plan.units)), self._threads),
            )
            parts = self._each(
                lambda part, scratch, picture=picture: self._rows(self._plan, picture, *part, scratch),
                _split(rows, self._threads * _BANDS_OF_THREAD if self._threads > 1 else 1),
            )
            finite[n] = all(parts)
        return KernelOutput(label=label, uncertainty=uncertainty, heatmaps=heatmaps, finite=finite)

    def _each(self, work: Callable[..., Any], parts: Iterable[tuple[int, ...]]) -> list[Any]:
        """Do all parts on the threads and wait, also for those that run when an interrupt ends the waiting."""

        def one(part: tuple[int, ...]) -> Any:
            scratch = self._scratch.get()
            try:
                return work(part, scratch.ctypes.data)
            finally:
                self._scratch.put(scratch)

        futures = [self._pool.submit(one, part) for part in parts]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)  # the next picture needs the planes to which they write

    def _groups(self) -> list[tuple[int, int, int]]:
        """(level, first, last) of the groups of 64 pixels to project."""
        return [
            (level, *bounds)
            for level, r in reversed(list(enumerate(self._coarse)))
            for bounds in _split(range(-(-r * r // _GROUP)), self._threads)
        ]

    def _check(self, stacks: Mapping[int, Floats]) -> int:
        num = len(next(iter(stacks.values())))
        for r, channels in self._channels.items():
            stack = stacks.get(r)
            expected = (num, channels, r, r)
            if stack is None or stack.shape != expected or stack.dtype != np.float32 or not stack.flags.c_contiguous:
                found = "missing" if stack is None else f"{stack.dtype} {list(stack.shape)}"
                raise ValueError(f"stack {r} is {found}, expected contiguous float32 {list(expected)}")
        return num

    def _point_at(
        self,
        stacks: Mapping[int, Floats],
        n: int,
        label: npt.NDArray[np.uint8],
        uncertainty: Floats,
        heatmaps: Floats,
    ) -> PictureStruct:
        picture = PictureStruct()
        picture.arrays = (*stacks.values(), label, uncertainty, heatmaps)
        for index, r in enumerate(self._coarse):
            picture.coarse[index] = stacks[r][n].ctypes.data
            picture.planes[index] = self._planes[index].ctypes.data
        if self._half:
            picture.half = stacks[self._half][n].ctypes.data
        for index, r in enumerate(self._full):
            picture.full[index] = stacks[r][n].ctypes.data
        picture.knots = self._knots.ctypes.data
        picture.label, picture.uncertainty = label[n].ctypes.data, uncertainty[n].ctypes.data
        picture.heatmaps = heatmaps[n].ctypes.data if self._num_keypoints else None
        return picture

    def _make_plan(self, weights: InterpreterWeights, variant: Variant) -> PlanStruct:
        self._channels = {r: table.shape[1] for r, table in weights.levels.items()}
        plan = PlanStruct()
        plan.size, plan.units = weights.size, len(weights.bias1)
        plan.num_classes, plan.num_keypoints = self._num_classes, self._num_keypoints
        plan.vote_rule = VOTE_RULES.index(weights.vote_rule)
        plan.num_coarse = len(self._coarse)

        def words(table: Floats) -> int:
            return self._keep(pack_words(table, bfloat16=variant.bfloat16))

        for index, r in enumerate(self._coarse):
            plan.coarse_resolution[index], plan.coarse_channels[index] = r, self._channels[r]
            plan.coarse_weight[index] = words(weights.levels[r])
        if self._half:
            plan.half_channels, plan.half_weight = self._channels[self._half], words(weights.levels[self._half])
        plan.num_full = len(self._full)
        for index, r in enumerate(self._full):
            plan.full_channels[index], plan.full_ratio[index] = self._channels[r], r // self._size
        if self._full:
            plan.full_weight = words(np.concatenate([weights.levels[r] for r in self._full], axis=1))
        plan.bias = self._keep(weights.bias1)
        plan.classifiers = self._describe(weights.classifiers, variant)
        if weights.regressors is not None:
            plan.regressors = self._describe(weights.regressors, variant)
        return plan

    def _describe(self, members: MemberWeights, variant: Variant) -> EnsembleStruct:
        return EnsembleStruct(
            members=members.num_members,
            width1=members.width1,
            width2=members.weight2.shape[1],
            outputs=members.weight3.shape[1],
            weight2=self._keep(pack_words(members.weight2, bfloat16=variant.bfloat16)),
            bias2=self._keep(members.bias2),
            weight3=self._keep(pack_floats(members.weight3)),
            bias3=self._keep(members.bias3),
        )

    def _keep(self, array: npt.NDArray[Any]) -> int:
        kept = np.ascontiguousarray(array)
        self._kept.append(kept)
        return int(kept.ctypes.data)


def _split(numbers: range, parts: int) -> list[tuple[int, int]]:
    """Cut a range into about equal pieces, none empty."""
    bounds = [numbers.start + len(numbers) * part // parts for part in range(parts + 1)]
    return [(low, high) for low, high in itertools.pairwise(bounds) if low < high]


def _aligned(num_bytes: int) -> npt.NDArray[np.uint8]:
    whole = np.zeros(num_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -whole.ctypes.data % _ALIGNMENT
    return whole[start : start + num_bytes]
