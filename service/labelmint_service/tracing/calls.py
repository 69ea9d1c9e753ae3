"""What is traced: calls with the stages that their rows go through, and the batches that rows of several calls share.

Times are those of time.perf_counter_ns(). Here stands what the service tells, and what does nothing with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

AttributeValue: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class CallTrace(Protocol):
    """One call.

    Attributes:
        log_fields: What its log lines carry; empty if it is not traced.
        exemplar: What a metric may point at it with; None if nothing of it is sent.
    """

    log_fields: Mapping[str, str]
    exemplar: dict[str, str] | None

    def describe(self, **attributes: AttributeValue) -> None:
        """Say more of the call."""
        ...

    def add_stage(self, stage: str, began_ns: int, ended_ns: int, **attributes: AttributeValue) -> None:
        """Say that a stage of the call is over."""
        ...

    def end(self, code: str, error: BaseException | None) -> None:
        """Say that the call is over.

        Args:
            code: Name of its gRPC status.
            error: What ended it; None if nothing did.
        """
        ...


class TracedStream(Protocol):
    """Whose rows they are.

    Attributes:
        request_id: As the log has it.
        trace: Of its call.
    """

    request_id: str
    trace: CallTrace


class TracedRows(Protocol):
    """Rows of one stream in one batch.

    Attributes:
        indices: Of the samples, ascending.
        waited_ns: How long the stream had waited for its turn.
        taken_ns: When they were taken from the stream.
    """

    @property
    def stream(self) -> TracedStream:
        """Whose they are."""
        ...

    indices: tuple[int, ...]
    waited_ns: int
    taken_ns: int


class Tracing(Protocol):
    """Where traces go."""

    def begin_call(self, service: str, rpc: str, request_id: str, metadata: Metadata) -> CallTrace:
        """Begin to trace a call, as part of the trace that its metadata names, if they do."""
        ...

    def add_batch(
        self,
        model: str,
        parts: Sequence[TracedRows],
        began_ns: int,
        ended_ns: int,
        stages_ns: Mapping[str, int],
        error: BaseException | None = None,
    ) -> None:
        """Say that the engine has run a batch: it is linked to the calls whose rows it holds, and they to it.

        Args:
            model: Name of the model.
            parts: Its rows.
            began_ns: When the engine began.
            ended_ns: When it had ended.
            stages_ns: Time of the engine's own stages, as far as it tells them.
            error: Why the run failed; None if it did not.
        """
        ...

    def close(self) -> None:
        """Send what was not sent yet, but do not wait long for whoever does not take it."""
        ...


class Untraced:
    """A call that is not traced, and what traces no call."""

    log_fields: Mapping[str, str] = {}
    exemplar: dict[str, str] | None = None

    def describe(self, **attributes: AttributeValue) -> None:
        """Do nothing."""

    def add_stage(self, stage: str, began_ns: int, ended_ns: int, **attributes: AttributeValue) -> None:
        """Do nothing."""

    def end(self, code: str, error: BaseException | None) -> None:
        """Do nothing."""

    def begin_call(self, service: str, rpc: str, request_id: str, metadata: Metadata) -> CallTrace:
        """Trace nothing."""
        del service, rpc, request_id, metadata
        return self

    def add_batch(
        self,
        model: str,
        parts: Sequence[TracedRows],
        began_ns: int,
        ended_ns: int,
        stages_ns: Mapping[str, int],
        error: BaseException | None = None,
    ) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


UNTRACED = Untraced()
