"""What the makers of a target decide."""

from dataclasses import dataclass

from labelmint_export.errors import BuildError

MAX_BATCH = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchProfile:
    """Batches that an engine is built for."""

    min_batch: int = 1
    """Smallest."""
    opt_batch: int = 4
    """The one that kernels are chosen for."""
    max_batch: int = 8
    """Largest."""

    def __post_init__(self) -> None:
        """Check the order.

        Raises:
            BuildError: A batch is out of range or the three are not in ascending order.
        """
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch <= MAX_BATCH:
            raise BuildError(
                f"profile is {self.min_batch} {self.opt_batch} {self.max_batch}, expected three batches in ascending "
                f"order, from 1 to {MAX_BATCH}",
                field="profile",
            )

    def record(self) -> dict[str, int]:
        """As it stands in a target's manifest."""
        return {"min_batch": self.min_batch, "opt_batch": self.opt_batch, "max_batch": self.max_batch}


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetSettings:
    """What the makers of a target decide."""

    profile: BatchProfile = BatchProfile()
    """Batches; TensorRT is tuned for them, Triton fills them up, the others take any from 1 on."""
    compute_capabilities: tuple[str, ...] = ()
    """GPUs of a TensorRT-RTX plan, such as "8.6"; empty leaves them to the device that loads it."""
    timing_cache: bytes = b""
    """What TensorRT measured for an earlier plan on the same GPU, its `timing.cache`; empty measures anew."""
    queue_delay_us: int = 2000
    """How long Triton waits to fill a batch, microseconds."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BuildError: A value is out of range.
        """
        if not 0 <= self.queue_delay_us <= 10**7:
            raise BuildError(
                f"queue_delay_us is {self.queue_delay_us}, expected 0 to 10000000 microseconds", field="queue_delay_us"
            )
