"""When a broken call is tried again."""

import logging
import math
import random
import time
from dataclasses import dataclass, field

import grpc

from labelmint_client._cursor import StreamCursor
from labelmint_client._errors import ClientError, InvalidArgumentError, NumericsMismatchError
from labelmint_client._failed_call import FailedCall

_log = logging.getLogger("labelmint_client")
_NOTICE_AFTER = 3
"""Attempts without an answer after which one line says that more follow: those before are over in a moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often and how patiently a call is repeated after a fault that may pass.

    Attempts are counted from the last progress: a stream that goes on delivering is repeated for ever. Those that the
    server answered, with a refusal that may pass, and those that nobody answered are counted apart.

    Attributes:
        max_attempts: Attempts in a row without progress, at a server that has answered this client before or does now.
        connect_attempts: Attempts that nobody answers, at a server that never has. The waits between nine are 16 to
            33 s together: enough for one that starts or is restarted, and a wrong address is still told.
        max_connect_s: One of these that fails so long after the first is the last, seconds: where packets vanish, each
            alone takes 20 s.
        initial_backoff_s: Wait after the first failure, seconds.
        max_backoff_s: Longest wait, seconds.
        multiplier: Growth of the wait from one failure to the next.
        jitter: Part of the wait that is drawn at random, in [0, 1], so that many clients do not return at once.
        max_retry_after_s: Longest time after which a server may say to try again, seconds. It is waited for before
            the wait above; a longer one ends the call.
    """

    max_attempts: int = 10
    connect_attempts: int = 9
    max_connect_s: float = 30.0
    initial_backoff_s: float = 0.2
    max_backoff_s: float = 10.0
    multiplier: float = 2.0
    jitter: float = 0.5
    max_retry_after_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgumentError: A value is out of range.
        """
        self._check("max_attempts", self.max_attempts, low=1)
        self._check("connect_attempts", self.connect_attempts, low=1)
        self._check("max_connect_s", self.max_connect_s, low=0)
        self._check("initial_backoff_s", self.initial_backoff_s, low=0)
        self._check("max_backoff_s", self.max_backoff_s, low=self.initial_backoff_s)
        self._check("multiplier", self.multiplier, low=1)
        self._check("max_retry_after_s", self.max_retry_after_s, low=0)
        self._check("jitter", self.jitter, low=0, high=1)

    def delay_s(self, num_failures: int, random_source: random.Random) -> float:
        """Draw the wait before the next attempt, seconds.

        Args:
            num_failures: Failures in a row so far, at least 1.
            random_source: Where the jitter comes from.
        """
        exponent = min(num_failures - 1, 64)
        full = min(self.initial_backoff_s * self.multiplier**exponent, self.max_backoff_s)
        return full * (1.0 - self.jitter * random_source.random())

    @staticmethod
    def _check(name: str, value: float, *, low: float, high: float = math.inf) -> None:
        if not low <= value <= high or math.isinf(value):
            raise InvalidArgumentError(f"{name} of the retry policy is {value}, expected {low} to {high}", field=name)


@dataclass(kw_only=True, slots=True)
class Contact:
    """What all calls of a client know of its server.

    Attributes:
        was_reached: Whether it ever answered, be it with a refusal: the address is right.
    """

    was_reached: bool = False


@dataclass(kw_only=True, slots=True)
class Recovery:
    """Counts failures in a row and says how long to wait, or that it is enough.

    Attributes:
        policy: Bounds.
        address: Server, for messages.
        contact: Of the client.
        has_progressed: Whether the stream ever brought anything: what it asked for was there.
        num_refused: Attempts since the last progress that the server answered with a refusal.
        num_unanswered: Those that nobody answered.
        unanswered_since_s: When the first of these had failed, on the monotonic clock.
        num_reconnects: Attempts after a failure, over the whole stream.
    """

    policy: RetryPolicy
    address: str
    contact: Contact
    has_progressed: bool = False
    num_refused: int = 0
    num_unanswered: int = 0
    unanswered_since_s: float = 0.0
    num_reconnects: int = 0
    random_source: random.Random = field(default_factory=random.Random)

    def answered(self) -> None:
        """Note that the server is there."""
        self.contact.was_reached = True

    def progressed(self) -> None:
        """Note that something came."""
        self.has_progressed = True
        self.num_refused = self.num_unanswered = 0

    def delay_s(self, failed: FailedCall, cursor: StreamCursor | None, *, ordinal_offset: int = 0) -> float:
        """Note a failure.

        Args:
            failed: How the call ended.
            cursor: Where the stream stands; None if the call is no stream.
            ordinal_offset: For `Label`, whose indices count from the start of the call: the row the call began with.

        Returns:
            Seconds to wait before the next attempt.

        Raises:
            ClientError: The fault will not pass, or not as soon as the policy wants, or the attempts are spent.
        """
        is_spent = self._note_refused() if failed.is_answer else self._note_unanswered()
        hint_s = failed.hint.retry_after_s or 0.0
        is_final = not failed.is_transient or (failed.needs_a_hand and not self.has_progressed)
        if is_final or hint_s > self.policy.max_retry_after_s or is_spent:
            error = failed.to_error(address=self.address, num_attempts=self.num_refused + self.num_unanswered)
            self.num_refused = self.num_unanswered = 0
            raise error if cursor is None else _with_resume_point(error, cursor, ordinal_offset)
        self.num_reconnects += 1
        if self.num_unanswered == _NOTICE_AFTER and not self.contact.was_reached:
            _log.warning("no answer from %s yet: %s; trying again", self.address, failed.details)
        # Later than told, each client by another time and more each time, so that not all return at once.
        num_failures = self.num_refused if failed.is_answer else self.num_unanswered
        return hint_s + self.policy.delay_s(num_failures, self.random_source)

    def _note_refused(self) -> bool:
        """Count an answer; returns whether no more may follow."""
        self.answered()
        self.num_refused += 1
        return self.num_refused >= self.policy.max_attempts

    def _note_unanswered(self) -> bool:
        """Count an attempt without an answer; returns whether no more may follow."""
        now_s = time.monotonic()
        if not self.num_unanswered:
            self.unanswered_since_s = now_s
        self.num_unanswered += 1
        if self.contact.was_reached:
            return self.num_unanswered >= self.policy.max_attempts
        is_late = now_s - self.unanswered_since_s >= self.policy.max_connect_s
        return is_late or self.num_unanswered >= self.policy.connect_attempts


def _with_resume_point(error: ClientError, cursor: StreamCursor, ordinal_offset: int) -> ClientError:
    """Name the address to go on with.

    That is the one up to which samples really came, whatever the server counted; but past a sample that cannot be made,
    for which DATA_LOSS stands, only the server's word leads.
    """
    if isinstance(error, NumericsMismatchError) and cursor.num_scanned:
        message = f"{str(error).rstrip('.')}. {cursor.how_to_go_on()}"
        error = NumericsMismatchError(message, field=error.field, code=error.code, request_id=error.request_id)
    told = error.next_index if error.code is grpc.StatusCode.DATA_LOSS else None
    error.next_index = cursor.next_index if told is None else max(cursor.next_index, told + ordinal_offset)
    return error
