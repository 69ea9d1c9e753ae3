"""The weights of an interpreter as plain arrays, from the tables of a bundle.

U hidden units of all members, M members, C_r channels of all taps of resolution r, h1 and h2 hidden widths, O outputs
(classes or keypoints).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint.graphs import VOTE_RULES

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
    """Everything that the interpreter of a bundle computes with.

    Attributes:
        size: Label resolution before the crop, pixels.
        levels: Resolution -> float32 [U, C_r], ascending.
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
        ValueError: A table has another shape.
    """
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


def _check(weights: InterpreterWeights, channels: Mapping[int, int]) -> None:
    units = sum(ensemble.num_members * ensemble.width1 for ensemble in weights.ensembles)
    for r, table in weights.levels.items():
        if table.shape != (units, channels[r]):
            raise ValueError(f"the weights of level {r} are {list(table.shape)}, expected {[units, channels[r]]}")
    if weights.bias1.shape != (units,):
        raise ValueError(f"bias1 is {list(weights.bias1.shape)}, expected {[units]}")
    if weights.vote_rule not in VOTE_RULES:
        raise ValueError(f"vote_rule is {weights.vote_rule!r}, expected one of {', '.join(VOTE_RULES)}")
