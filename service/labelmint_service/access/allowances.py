"""Allowances: what a stream may take, asked before rows are handed out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from labelmint_service.errors import ServiceError


class Allowance(Protocol):
    """What a stream may take.

    Attributes:
        client: Name of the client; empty if clients are not told apart.
        priority: Larger goes first.
    """

    client: str
    priority: int

    def open(self, on_change: Callable[[], None]) -> None:
        """Begin to count the stream.

        Args:
            on_change: Called when the stream should look again at what it may take, or whether it may go on.

        Raises:
            ServiceError: It may not begin.
        """
        ...

    def num_ready(self, most: int) -> int:
        """Rows that may be handed out now, at most `most`; they stay claimed until the next call of this or `take`."""
        ...

    def take(self, count: int) -> None:
        """Note that rows were handed out, at most as many as `num_ready` said."""
        ...

    def refusal(self) -> ServiceError | None:
        """Why nothing more will be handed out; None if it will."""
        ...

    def close(self) -> None:
        """Count the stream no longer; once is enough."""
        ...


class Unlimited:
    """The allowance of callers that are not told apart."""

    client = ""
    priority = 0

    def open(self, on_change: Callable[[], None]) -> None:
        """Do nothing."""

    def num_ready(self, most: int) -> int:
        """All of it."""
        return most

    def take(self, count: int) -> None:
        """Do nothing."""

    def refusal(self) -> ServiceError | None:
        """None: it never ends."""
        return None

    def close(self) -> None:
        """Do nothing."""
