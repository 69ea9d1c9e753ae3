"""The outbox of a stream: messages that wait for the caller, and one now and then that tells how far the stream is."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from labelmint_service.messages.batching import Reply, build_progress
from labelmint_service.models.served import ServedModel


class Outbox:
    """Keeps messages in order until they are taken.

    Args:
        model: What makes the samples.
        interval_s: Time between messages after which one without samples is due; None for none of these.

    Attributes:
        changed: Set when there is something to take, or when there will be nothing more.
        num_unreported: Rows scanned and rejected since the last message.
    """

    def __init__(self, model: ServedModel, interval_s: float | None) -> None:
        self.changed = asyncio.Event()
        self.num_unreported = 0
        self._model = model
        self._interval_s = interval_s
        self._replies: deque[Reply] = deque()
        self._last_reply_s = time.monotonic()

    def put(self, reply: Reply) -> None:
        """Add a message."""
        self._replies.append(reply)
        self._last_reply_s = time.monotonic()
        self.changed.set()

    def take(self) -> Reply | None:
        """The next message; None if there is none."""
        return self._replies.popleft() if self._replies else None

    def clear(self) -> None:
        """Drop what was not taken, and what is not reported yet."""
        self._replies.clear()
        self.num_unreported = 0
        self.changed.set()

    @property
    def is_empty(self) -> bool:
        """Whether everything was taken."""
        return not self._replies

    @property
    def seconds_until_report(self) -> float | None:
        """Time until a message without samples is due; None for never."""
        if self._interval_s is None:
            return None
        return max(0.0, self._last_reply_s + self._interval_s - time.monotonic())

    def report_if_due(self, next_index: int) -> None:
        """Tell a caller that waits in vain how far the stream is; one that does not read learns it later.

        Args:
            next_index: Where the stream would be taken up again.
        """
        if self.seconds_until_report == 0.0:
            if self._replies:
                self._last_reply_s = time.monotonic()
            else:
                self._report(next_index)

    def close(self, next_index: int) -> None:
        """Tell of what is not reported yet; there will be nothing more.

        Args:
            next_index: Where the stream would be taken up again.
        """
        if self.num_unreported:
            self._report(next_index)
        self.changed.set()

    def _report(self, next_index: int) -> None:
        self.put(build_progress(self._model, num_rejected=self.num_unreported, next_index=next_index))
        self.num_unreported = 0
