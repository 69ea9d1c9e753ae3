"""The weights of an interpreter as plain arrays, from the tables of a bundle.

U hidden units of all members, M members, C_r channels of all taps of resolution r, h1 and h2 hidden widths, O outputs
(classes or keypoints).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint.graphs import VOTE_RULES
from labelmint_service.engine.fused.native import MAX_FULL, MAX_SIZE

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberWeights:
    """Layers 2 and 3 of the members of one ensemble.

    Attributes:
        width1: h1, their inputs each.
        weight2: float32 [M, h2, h1].
        bias2: float32 [M, h2].
        weight3: float32 [M, O, h2].
        bias3: float32 [M, O].
    """

    width1: int
    weight2: Floats
    bias2: Floats
    weight3: Floats
    bias3: Floats

    @property
    def num_members(self) -> int:
        """M."""
        return len(self.weight2)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterpreterWeights:
    """Everything that the interpreter of a bundle computes with, as `weights_from_tables` has checked it.

    Attributes:
        size: Label resolution before the crop, pixels.
        levels: Resolution -> float32 [U, C_r], ascending; each a power of two times or part of the size.
        bias1: float32 [U].
        classifiers: Their units come first.
        regressors: None if the model has no keypoints. Their outputs are to be added up, not averaged.
        vote_rule: One of `labelmint.graphs.VOTE_RULES`.
    """

    size: int
    levels: Mapping[int, Floats]
    bias1: Floats
    classifiers: MemberWeights
    regressors: MemberWeights | None
    vote_rule: str

    @property
    def ensembles(self) -> tuple[MemberWeights, ...]:
        """Those that there are, in the order of their units."""
        return (self.classifiers,) if self.regressors is None else (self.classifiers, self.regressors)


def weights_from_tables(
    tables: Mapping[str, Floats], channels: Mapping[int, int], size: int, vote_rule: str
) -> InterpreterWeights:
    """Order the tables of a fused interpreter (labelmint_export.interpreter.fused, by the names of its buffers).

    Args:
        tables: Name -> float32 array.
        channels: Resolution -> channels of all its taps.
        size: Label resolution, pixels.
        vote_rule: One of `labelmint.graphs.VOTE_RULES`.

    Raises:
        KeyError: A table is missing.
        ValueError: A table has another shape or holds a number that is not finite, or the levels are none that the
            kernels know.
    """
    check_levels(channels, size)
    for name, table in tables.items():
        if not np.isfinite(table).all():
            raise ValueError(f"{name} holds a number that is not finite")
    levels: dict[int, Floats] = {}
    fine = [r for r in sorted(channels) if r > size // 4]
    for r in sorted(channels):
        if r not in fine:
            levels[r] = tables[f"weight_r{r}"]
    start = 0
    for r in fine:
        levels[r] = tables["weight_fine"][:, start : start + channels[r]]
        start += channels[r]
    weights = InterpreterWeights(
        size=size,
        levels=levels,
        bias1=tables["bias1"].reshape(-1),
        classifiers=_members(tables, "classifiers"),
        regressors=_averaged_members(tables) if "regressors.weight2" in tables else None,
        vote_rule=vote_rule,
    )
    _check(weights, channels)
    return weights


def _members(tables: Mapping[str, Floats], name: str) -> MemberWeights:
    weight2, weight3 = tables[f"{name}.weight2"], tables[f"{name}.weight3"]
    return MemberWeights(
        width1=weight2.shape[2],
        weight2=weight2,
        bias2=tables[f"{name}.bias2"].reshape(weight2.shape[:2]),
        weight3=weight3,
        bias3=tables[f"{name}.bias3"].reshape(weight3.shape[:2]),
    )


def _averaged_members(tables: Mapping[str, Floats]) -> MemberWeights:
    """The mean of the members is stored as one linear layer on all of their units: [1, O, M * h2]."""
    weight2 = tables["regressors.weight2"]
    members, width2, width1 = weight2.shape
    outputs = tables["regressors.weight3"].shape[1]
    bias3 = np.zeros((members, outputs), dtype=np.float32)
    bias3[0] = tables["regressors.bias3"].reshape(outputs)
    return MemberWeights(
        width1=width1,
        weight2=weight2,
        bias2=tables["regressors.bias2"].reshape(members, width2),
        weight3=tables["regressors.weight3"].reshape(outputs, members, width2).transpose(1, 0, 2),
        bias3=bias3,
    )


def check_levels(levels: Collection[int], size: int) -> None:
    """Check that the kernels can resize levels: their sums have knots that double up to a quarter of the size.

    Args:
        levels: Resolutions.
        size: Label resolution, pixels.

    Raises:
        ValueError: They cannot.
    """
    ratios = [divmod(max(r, size), min(r, size)) for r in levels]
    if size % 4 or size > MAX_SIZE or any(rest or ratio & (ratio - 1) for ratio, rest in ratios):
        raise ValueError(
            f"levels {sorted(levels)} do not fit a label resolution of {size}, expected powers of two times or part of "
            f"it, and a multiple of 4 up to {MAX_SIZE}"
        )
    full = [r for r in levels if r >= size]
    if len(full) > MAX_FULL:
        raise ValueError(f"levels {sorted(full)} are as fine as the labels or finer, expected at most {MAX_FULL}")


def _check(weights: InterpreterWeights, channels: Mapping[int, int]) -> None:
    units = sum(ensemble.num_members * ensemble.width1 for ensemble in weights.ensembles)
    expected: list[tuple[str, Floats, tuple[int, ...]]] = [("bias1", weights.bias1, (units,))]
    expected += [(f"the table of level {r}", table, (units, channels[r])) for r, table in weights.levels.items()]
    for members in weights.ensembles:
        sizes = (members.num_members, members.weight3.shape[1], members.weight2.shape[1])
        expected.append(("weight3 of the members", members.weight3, sizes))
    for name, table, shape in expected:
        if table.shape != shape or not table.size:
            raise ValueError(f"{name} is {list(table.shape)}, expected {list(shape)}, none of them 0")
    if weights.vote_rule not in VOTE_RULES:
        raise ValueError(f"vote_rule is {weights.vote_rule!r}, expected one of {', '.join(VOTE_RULES)}")
