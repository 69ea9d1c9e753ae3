"""What bounds a stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What bounds a stream.

    Attributes:
        credit_rows: Rows in work or waiting for the caller.
        max_accepted: Samples to send; None without an end.
        max_scanned: Rows to scan; None without a bound.
        progress_interval_s: Time between messages without samples; None for none of these.
        deadline_s: Time of time.monotonic() after which nothing is computed; None for never.
    """

    credit_rows: int
    max_accepted: int | None
    max_scanned: int | None
    progress_interval_s: float | None
    deadline_s: float | None
