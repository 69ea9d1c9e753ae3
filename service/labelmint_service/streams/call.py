"""The call that a stream is for, as far as streams care."""

from __future__ import annotations

from dataclasses import dataclass

from labelmint_service.access.control import Caller
from labelmint_service.tracing.calls import CallTrace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamCall:
    """A call that may be made.

    Attributes:
        caller: Who makes it.
        deadline_s: Time of time.monotonic() at which the caller gives up; None for never.
        request_id: For the log.
        trace: What is told of it.
    """

    caller: Caller
    deadline_s: float | None
    request_id: str
    trace: CallTrace
