"""A round: every contender makes the samples of the same addresses, and proves which bits they had.

warm-up batches | timed batches | one more batch of a stream, so that the last timed one is not made in a pause
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.errors import ParityError
from benchmarks.reporting.files import Document

# Any: arrays of every dtype that a sample has.
SampleArrays = Mapping[str, npt.NDArray[Any]]
"""Field ("image", "mask", "keypoints", "uncertainty") -> array of one sample."""

Digests = dict[str, list[str]]
"""Field -> digest of each checked sample, from the first address of the round on."""

LEAD_OUT_BATCHES = 1
MAX_KEPT_BYTES = 256 * 2**20
"""Arrays that a contender keeps in a round, for digests that are computed once the clock stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What to make.

    Attributes:
        seed: Of the addresses.
        start_index: First address.
        warmup_batches: Not timed, at least 1.
        timed_batches: Timed, at least 1.
    """

    seed: int
    start_index: int
    warmup_batches: int
    timed_batches: int

    def request(self) -> Document:
        """As it travels to a worker."""
        return {"operation": "round", **dataclasses.asdict(self)}

    @classmethod
    def from_request(cls, request: Document) -> "Round":
        """Read what `request` wrote."""
        return cls(**{field.name: int(request[field.name]) for field in dataclasses.fields(cls)})


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundOutcome:
    """What came of it.

    Attributes:
        batch_ns: Duration of each timed batch, ns.
        digests: Proof of the outputs.
    """

    batch_ns: tuple[int, ...]
    digests: Digests

    def answer(self) -> Document:
        """As it travels from a worker."""
        return {"batch_ns": list(self.batch_ns), "digests": self.digests}

    @classmethod
    def from_answer(cls, answer: Document) -> "RoundOutcome":
        """Read what `answer` wrote."""
        return cls(batch_ns=tuple(int(value) for value in answer["batch_ns"]), digests=dict(answer["digests"]))

    @property
    def total_ns(self) -> int:
        """Time of all timed batches."""
        return sum(self.batch_ns)


class Keeper:
    """Keeps the arrays of the first samples of a round, up to MAX_KEPT_BYTES.

    Args:
        fields: Fields to keep.
    """

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields
        self._kept: list[SampleArrays] = []
        self._num_bytes = 0

    def keep(self, sample: SampleArrays) -> None:
        """Keep a sample's arrays, uncopied, if there is room."""
        if self._num_bytes < MAX_KEPT_BYTES:
            self._kept.append({field: sample[field] for field in self._fields})
            self._num_bytes += sum(array.nbytes for array in self._kept[-1].values())

    def digests(self) -> Digests:
        """Compute the digests of what was kept: they cover dtype, shape and bytes."""
        return {field: [digest_array(sample[field]) for sample in self._kept] for field in self._fields}


def digest_array(array: npt.NDArray[Any]) -> str:  # Any: of every dtype
    """The first 128 bits of a sha256, in hex."""
    head = f"{array.dtype.str} {array.shape} ".encode("ascii")
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


def check_parity(reference: Digests, other: Digests, *, name: str, start_index: int) -> int:
    """Compare the outputs of two contenders.

    Args:
        reference: Digests of the engine.
        other: Digests of another contender, of the same fields or fewer.
        name: What to call it.
        start_index: First address of the round.

    Returns:
        How many samples were compared.

    Raises:
        ParityError: They differ, or there is nothing to compare.
    """
    compared = min((len(digests) for digests in (*reference.values(), *other.values())), default=0)
    if not compared:
        raise ParityError(f"{name} gave no samples that could be compared with the engine's")
    for field, digests in other.items():
        for place, (expected, got) in enumerate(zip(reference[field], digests, strict=False)):
            if got != expected:
                raise ParityError(
                    f"{name}: {field} of sample {start_index + place} has digest {got}, the engine alone gives "
                    f"{expected}; speeds of different outputs cannot be compared: find the defect first",
                    field=field,
                )
    return compared
