"""What a checkpoint may cost: limits far above every real file and far below what hurts the machine."""

from dataclasses import dataclass
from typing import Self

from labelmint_export.errors import CheckpointError

MAX_FILE_BYTES = 4 << 30
"""Size of a file that is read. A full StyleGAN snapshot with its discriminator and optimizers has less than 2 GiB."""

MAX_TENSOR_BYTES = 4 << 30
"""Bytes of all tensors and strings of a file, each counted as often as it can be reached."""

MAX_REACHES = 2
"""How often the file's bytes may be reached: tensors may share a storage, and bfloat16 becomes float32."""

MIN_REACHABLE_BYTES = 64 << 20
"""What may be reached in the smallest file, whose tensors may repeat elements."""

MAX_COPIES = 8
"""How often reading may copy the file's bytes. A copy at an aligned address is one, float32 out of bfloat16 three."""

MIN_COPIED_BYTES = 1 << 20
"""What may be copied out of the smallest file."""

MAX_COPIED_BYTES = 3 << 29
"""What may be copied out of the largest file: 1.6 GB."""

MAX_OPERATIONS = 250_000
"""Pickle opcodes of a file, nested pickles and repeated work included. A whole snapshot of 1024 x 1024 has 80,000."""

MAX_VALUES = 1_000_000
"""Values in what is returned, each counted as often as it can be reached: sharing must not hide an exponential size."""

MAX_DEPTH = 64
"""Containers inside containers in what is returned. NVIDIA's snapshots have 11."""

MAX_STRING_BYTES = 64 << 20
"""Encoded size of one string."""

MAX_INTEGER_BYTES = 255
"""Encoded size of one integer."""

MAX_LINE_BYTES = 1024
"""Length of a line, in the few opcodes that have lines: names of globals, decimal integers."""

MAX_KEY_LENGTH = 1024
"""Characters of a dict's key, of a set's member and of a name: comparing those that are equal takes time."""

MAX_DIMS = 8
"""Dimensions of a tensor."""

MAX_TENSORS = 20_000
"""Tensors of one network. StyleGAN3 has fewer than 300."""

MAX_OVERLAPPING_BYTES = 1 << 20
"""Size of a tensor that is larger than its own storage, that is, one that repeats elements by strides of zero."""

MAX_ZIP_ENTRIES = 20_000
"""Files inside a torch archive."""

INLINE_BYTES = 64 << 10
"""Byte strings up to this size become `bytes`; larger ones stay read-only views of the file."""

ADVICE = "the file is damaged or hostile; get it again from where it was published"


@dataclass(slots=True)
class Budget:
    """What reading one file may still cost.

    Attributes:
        operations: Opcodes and steps of repeated work left.
        copied_bytes: Bytes left that may be copied out of the file's own.
        reachable_bytes: Bytes of all tensors and strings that may be reached in what is returned.
    """

    operations: int
    copied_bytes: int
    reachable_bytes: int

    @classmethod
    def for_file(cls, num_bytes: int) -> Self:
        """Make the budget of a file of that size."""
        return cls(
            operations=MAX_OPERATIONS,
            copied_bytes=min(MAX_COPIES * num_bytes + MIN_COPIED_BYTES, MAX_COPIED_BYTES),
            reachable_bytes=min(MAX_REACHES * num_bytes + MIN_REACHABLE_BYTES, MAX_TENSOR_BYTES),
        )

    def spend_operations(self, count: int = 1) -> None:
        """Pay for steps.

        Raises:
            CheckpointError: There is not enough left.
        """
        self.operations -= count
        if self.operations < 0:
            raise CheckpointError(
                f"the pickle takes more than {MAX_OPERATIONS} operations, expected far fewer for a snapshot; {ADVICE}",
                field="pickle",
            )

    def spend_bytes(self, count: int) -> None:
        """Pay for a copy, before it is made.

        Raises:
            CheckpointError: There is not enough left.
        """
        self.copied_bytes -= count
        if self.copied_bytes < 0:
            raise CheckpointError(
                f"the pickle makes more than {MAX_COPIES} copies of the file's bytes, or copies more than "
                f"{MAX_COPIED_BYTES} bytes, expected 4 copies at most; {ADVICE}",
                field="pickle",
            )
