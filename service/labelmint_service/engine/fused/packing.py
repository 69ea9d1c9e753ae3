"""Weights in the order in which the kernel reads them: four rows beside each other, channel after channel.

In bfloat16 a word holds two channels, the even one in its lower half.

R rows, K channels, U hidden units of all members.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmint_service.engine.fused.weights import Floats, InterpreterWeights, MemberWeights

ROWS = 4
# Any: float32, or uint32 that hold two bfloat16.
Words = npt.NDArray[Any]


def padded(x: Floats, axis: int, multiple: int) -> Floats:
    """Append zeros along an axis until its length is a multiple."""
    missing = -x.shape[axis] % multiple
    widths = [(0, missing if position == axis % x.ndim else 0) for position in range(x.ndim)]
    return np.pad(x, widths) if missing else x


def round_to_bfloat16(x: Floats) -> npt.NDArray[np.uint32]:
    """Upper halves of float32 values, rounded to nearest, ties to even; the values must be finite."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return rounded >> np.uint32(16)


def pack_floats(weight: Floats) -> Floats:
    """[..., R, K] -> [..., R / 4, K, 4]; rows are padded."""
    rows = padded(weight, -2, ROWS)
    grouped = rows.reshape(*rows.shape[:-2], -1, ROWS, rows.shape[-1])
    return np.ascontiguousarray(np.swapaxes(grouped, -1, -2))


def pack_words(weight: Floats, *, bfloat16: bool) -> Words:
    """[..., R, K] -> [..., R / 4, words, 4]."""
    if not bfloat16:
        return pack_floats(weight)
    halves = round_to_bfloat16(padded(weight, -1, 2))
    words = halves[..., 0::2] | (halves[..., 1::2] << np.uint32(16))
    return pack_floats(words.view(np.float32)).view(np.uint32)


def pad_units(table: Floats, ensembles: Sequence[MemberWeights], multiples: Sequence[int]) -> Floats:
    """Append zeros to each member's rows until their number is a multiple: [U, ...] -> [padded U, ...].

    Args:
        table: A row for each hidden unit of all members.
        ensembles: Whose members; one after the other.
        multiples: One for each ensemble.
    """
    parts, start = [], 0
    for ensemble, multiple in zip(ensembles, multiples, strict=True):
        count = ensemble.num_members * ensemble.width1
        rows = table[start : start + count].reshape(ensemble.num_members, ensemble.width1, *table.shape[1:])
        parts.append(padded(rows, 1, multiple).reshape(-1, *table.shape[1:]))
        start += count
    return np.concatenate(parts)


def pad_widths(weights: InterpreterWeights) -> InterpreterWeights:
    """Pad every member's hidden widths with units that are always zero, so that they come in fours."""
    pad = functools.partial(pad_units, ensembles=weights.ensembles, multiples=[ROWS] * len(weights.ensembles))
    return InterpreterWeights(
        size=weights.size,
        levels={r: pad(table) for r, table in weights.levels.items()},
        bias1=pad(weights.bias1),
        classifiers=_pad_members(weights.classifiers),
        regressors=_pad_members(weights.regressors) if weights.regressors else None,
        vote_rule=weights.vote_rule,
    )


def _pad_members(members: MemberWeights) -> MemberWeights:
    weight2 = padded(padded(members.weight2, 1, ROWS), 2, ROWS)
    return MemberWeights(
        width1=weight2.shape[2],
        weight2=weight2,
        bias2=padded(members.bias2, 1, ROWS),
        weight3=padded(padded(members.weight3, 1, ROWS), 2, ROWS),
        bias3=padded(members.bias3, 1, ROWS),
    )
