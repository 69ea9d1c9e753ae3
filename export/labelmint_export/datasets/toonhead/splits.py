"""Which combinations of component variants belong to training and which to the test.

A held-out picture that only had another random number would show the same hair above the same eyes that training saw.
So a hash of the whole tuple of variants decides, and about 15 % of the combinations are never trained on. Each single
variant still occurs on both sides.
"""

import dataclasses
import enum
import hashlib

TEST_FRACTION = 0.15
"""Fraction of the combinations that belong to the test split."""

NO_VARIANT = "none"
"""Stands for an optional component that is absent."""


class Split(enum.Enum):
    """One side of the data; the value is part of every sample's random key."""

    TRAIN = 0
    TEST = 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """The component variants of one avatar, which together decide its split."""

    hair: str
    """Variant of the front hair."""
    rear_hair: str
    """Variant of the rear hair, or "none"."""
    eyes: str
    """Variant of the eyes."""
    eyebrows: str
    """Variant of the eyebrows."""
    mouth: str
    """Variant of the mouth."""
    beard: str
    """Variant of the beard, or "none"."""
    clothes: str
    """Variant of the clothes."""

    @property
    def split(self) -> Split:
        """The split this combination belongs to, the same on every machine and for ever."""
        digest = hashlib.sha256("|".join(dataclasses.astuple(self)).encode()).digest()
        fraction = int.from_bytes(digest[:8], "big") / 2**64
        return Split.TEST if fraction < TEST_FRACTION else Split.TRAIN
