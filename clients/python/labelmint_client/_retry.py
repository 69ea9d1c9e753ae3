"""When a broken stream is tried again."""

import math
import random
from dataclasses import dataclass

from labelmint_client._errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How often and how patiently a call is repeated after a fault that may pass.

    Attempts are counted from the last progress: a stream that goes on delivering is repeated for ever.

    Attributes:
        max_attempts: Attempts in a row without progress once a stream has delivered something.
        connect_attempts: The same before the first answer, where a wrong address is the likelier cause.
        initial_backoff_s: Wait after the first failure, seconds.
        max_backoff_s: Longest wait, seconds.
        multiplier: Growth of the wait from one failure to the next.
        jitter: Part of the wait that is drawn at random, in [0, 1], so that many clients do not return at once.
        max_retry_after_s: Longest time after which a server may say to try again, seconds. It is waited for instead of
            the wait above; a longer one ends the call.
    """

    max_attempts: int = 10
    connect_attempts: int = 3
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
