"""Work: what the scheduler needs of a stream, and its rows on their way to the engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Protocol

from labelmint_service.engine import EngineInputs
from labelmint_service.scheduling.admission import Entrant
from labelmint_service.scheduling.rows import Delivery, Entry, Rows
from labelmint_service.tracing.calls import CallTrace


class WorkStream(Entrant, Protocol):
    """What the scheduler needs of a stream.

    Attributes:
        request_id: For the log.
        trace: What is told of its call.
        is_closed: Whether nobody waits for its rows any more.
    """

    request_id: str
    trace: CallTrace
    is_closed: bool

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        ...

    def num_ready(self, most: int) -> int:
        """Rows it wants computed now, at most `most`, which are kept for it until it is asked again."""
        ...

    def take(self, count: int) -> Rows:
        """Hand out the next rows."""
        ...

    def deliver(self, delivery: Delivery) -> None:
        """Receive computed rows, in the order in which they were handed out."""
        ...

    def fail(self, error: Exception) -> None:
        """End after what was delivered; rows still on their way never come."""
        ...

    def drain(self) -> None:
        """End after what was handed out; nothing more will be taken."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Part:
    """Rows of one stream in one batch.

    Attributes:
        stream: Whose they are.
        entry: Where they enter the engine.
        indices: Of the samples, ascending.
        waited_ns: How long the stream had waited for its turn.
        taken_ns: When they were taken from it.
        loading: Makes their latents.
    """

    stream: WorkStream
    entry: Entry
    indices: tuple[int, ...]
    waited_ns: int
    taken_ns: int
    loading: asyncio.Future[EngineInputs]

    def loaded(self, inputs: EngineInputs) -> LoadedPart:
        """The same with its latents."""
        return LoadedPart(self.stream, self.indices, self.waited_ns, self.taken_ns, inputs)


@dataclass(slots=True)
class LoadedPart:
    """Rows of one stream, ready for the engine; see Part."""

    stream: WorkStream
    indices: tuple[int, ...]
    waited_ns: int
    taken_ns: int
    inputs: EngineInputs

    def head(self, count: int) -> LoadedPart:
        """The first of them."""
        return replace(self, indices=self.indices[:count], inputs=self.inputs.rows(0, count))
