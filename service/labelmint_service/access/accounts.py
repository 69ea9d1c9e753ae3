"""Accounts: what one client uses at the moment, over all its streams, and the allowance that each of them holds.

A stream asks its allowance how many rows it may hand out (`num_ready`) and says how many it did (`take`). What it was
told is claimed until then, so that two streams are never told of the same samples. When the answer was less than
wanted, the stream is told to ask again as soon as that may have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from labelmint_service.access.clients import Client
from labelmint_service.access.quotas import DayQuota, DayUse
from labelmint_service.access.rates import RateBucket
from labelmint_service.errors import QuotaError, ServiceError, UnauthenticatedError

_RETRY_STREAM_S = 1.0  # a guess: nobody knows when a stream ends
_ASK_AGAIN_S = 0.1  # when only claims of the client's other streams are in the way


class CallLater(Protocol):
    """What arranges calls, as an event loop's `call_later` does."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call back after so many seconds."""
        ...


class Reserve(Protocol):
    """What writes down how much of its day a client uses."""

    def __call__(self, client: str, use: DayUse, on_done: Callable[[ServiceError | None], None], /) -> None:
        """Begin to write; call back when it is on disk, or with why it is not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Clocks, timers, disk and counters, which tests replace.

    Attributes:
        clock_ns: Nanoseconds of a clock that never goes back.
        wall_s: Seconds since 1970-01-01, UTC.
        call_later: Arranges calls.
        reserve: Writes down.
        count: Counts samples that were handed out, by client.
    """

    clock_ns: Callable[[], int]
    wall_s: Callable[[], float]
    call_later: CallLater
    reserve: Reserve
    count: Callable[[str, int], None]


class ClientAccount:
    """What one client uses, over all its streams. Not for several threads.

    Args:
        client: The client, with its limits.
        recorded: What it used of its day before; None for nothing.
        surroundings: Clocks, timers and disk.
    """

    def __init__(self, client: Client, recorded: DayUse | None, surroundings: Surroundings) -> None:
        self.client = client
        self._surroundings = surroundings
        self._last_use = recorded
        self._bucket: RateBucket | None = None
        self._quota: DayQuota | None = None
        self._claims: dict[ClientAllowance, int] = {}
        self._is_withdrawn = False
        self._is_recording = False
        self._store_error: ServiceError | None = None
        self._due_ns: int | None = None
        self.update(client)

    def update(self, client: Client | None) -> None:
        """Go on with other limits; what was used stays used.

        Args:
            client: As the file of clients now has it; None if it is no longer there.
        """
        self._is_withdrawn = client is None
        if client is not None:
            self.client = client
            self._set_rate(client.samples_per_second)
            self._set_quota(client.samples_per_day)
        self._wake()

    def notice_expiry(self) -> None:
        """Have the streams look again if the tokens have expired; call it from time to time."""
        if self._claims and self.client.is_expired(datetime.fromtimestamp(self._surroundings.wall_s(), UTC)):
            self._wake()

    def use(self) -> DayUse | None:
        """What to write down when nothing more will be spent; None without a quota."""
        return self._quota.unreserved() if self._quota else None

    def enter(self, allowance: ClientAllowance) -> None:
        """Count a stream.

        Raises:
            ServiceError: The client may not have it.
        """
        self._store_error = None  # another try
        error = self.refusal(allowance)
        if error is not None:
            raise error
        limit = self.client.max_streams
        if limit is not None and len(self._claims) >= limit:
            raise QuotaError(
                f"{len(self._claims)} streams of client {self.client.name!r} are in work, expected fewer than {limit}; "
                "retry when one has ended, or ask the operator to raise max_streams",
                client=self.client.name,
                limit="max_streams",
                retry_after_s=_RETRY_STREAM_S,
            )
        self._claims[allowance] = 0

    def leave(self, allowance: ClientAllowance) -> None:
        """Count a stream no longer."""
        if self._claims.pop(allowance, 0):
            self._wake()  # what it had claimed is free

    def num_ready(self, allowance: ClientAllowance, most: int) -> int:
        """Claim rows for a stream, in place of what it had claimed."""
        if allowance not in self._claims:
            return 0  # its stream has ended
        self._claims[allowance] = 0
        is_refused = self.refusal(allowance) is not None
        if is_refused and not allowance.is_told:
            allowance.on_change()
        allowance.is_told = is_refused
        if is_refused or not most:
            return 0
        claimed = sum(self._claims.values())
        count = min(self._within_rate(most, claimed), self._within_quota(most, claimed))
        self._claims[allowance] = count
        return count

    def take(self, allowance: ClientAllowance, count: int) -> None:
        """Spend what a stream had claimed."""
        assert count <= self._claims[allowance], "more rows were taken than there were ready"
        self._claims[allowance] -= count
        self._surroundings.count(self.client.name, count)
        if self._bucket is not None:
            self._bucket.spend(count, self._surroundings.clock_ns())
        if self._quota is not None:
            self._quota.spend(count)
            self._reserve(self._quota)
            if self._quota.is_spent(self._surroundings.wall_s()):
                self._wake()

    def refusal(self, allowance: ClientAllowance) -> ServiceError | None:
        """Why a stream may go on no longer; None if it may."""
        now_s = self._surroundings.wall_s()
        name = self.client.name
        if self._is_withdrawn or allowance.digest not in self.client.token_sha256:
            return UnauthenticatedError(f"the token of client {name!r} was withdrawn; ask the operator for another")
        if self.client.is_expired(datetime.fromtimestamp(now_s, UTC)):
            return UnauthenticatedError(f"the token of client {name!r} has expired; ask the operator for another")
        if self._store_error is not None:
            return self._store_error
        if self._quota is None or not self._quota.is_spent(now_s):
            return None
        wait_s = self._quota.seconds_left(now_s)
        return QuotaError(
            f"client {name!r} has used its {self._quota.limit} samples of the day (UTC), which ends in "
            f"{wait_s / 3600:.1f} h; go on then, or ask the operator to raise samples_per_day",
            client=name,
            limit="samples_per_day",
            retry_after_s=wait_s,
        )

    def _within_rate(self, most: int, claimed: int) -> int:
        """Rows that the rate leaves; whole quanta of them, so that a slow stream does not make a batch a row."""
        if self._bucket is None:
            return most
        now_ns = self._surroundings.clock_ns()
        available = self._bucket.available(now_ns) - claimed
        enough = min(self._bucket.quantum, most)
        if available >= enough:
            return min(most, available)
        self._ask_again(self._bucket.wait_s(claimed + enough, now_ns) or _ASK_AGAIN_S)
        return 0

    def _within_quota(self, most: int, claimed: int) -> int:
        """Rows that the day leaves and that are written down."""
        if self._quota is None:
            return most
        self._reserve(self._quota)
        available = max(0, self._quota.available(self._surroundings.wall_s()) - claimed)
        if not available and not self._is_recording:
            self._ask_again(_ASK_AGAIN_S)
        return min(most, available)

    def _reserve(self, quota: DayQuota) -> None:
        """Have more written down before it runs out."""
        use = quota.wanted(self._surroundings.wall_s())
        if use is None or self._is_recording or self._store_error is not None:
            return
        self._is_recording = True

        def on_done(error: ServiceError | None) -> None:
            self._is_recording = False
            if error is None:
                quota.confirm(use)
            else:
                self._store_error = error
            self._wake()

        self._surroundings.reserve(self.client.name, use, on_done)

    def _ask_again(self, delay_s: float) -> None:
        """Have all streams ask again after some time."""
        due_ns = self._surroundings.clock_ns() + int(delay_s * 1e9)
        if self._due_ns is None or due_ns < self._due_ns:
            self._due_ns = due_ns
            self._surroundings.call_later(delay_s, self._on_due)

    def _on_due(self) -> None:
        self._due_ns = None
        self._wake()

    def _wake(self) -> None:
        for allowance in list(self._claims):
            allowance.on_change()

    def _set_rate(self, rate: float | None) -> None:
        if rate is None:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = RateBucket(rate, self._surroundings.clock_ns())
        else:
            self._bucket.set_rate(rate, self._surroundings.clock_ns())

    def _set_quota(self, limit: int | None) -> None:
        if limit is None:
            self._last_use = self.use() or self._last_use
            self._quota = None
        elif self._quota is None:
            self._quota = DayQuota(limit, self._last_use, self._surroundings.wall_s())
        else:
            self._quota.limit = limit


class ClientAllowance:
    """The allowance of one stream of a client.

    Args:
        account: The client's.
        digest: Hash of the token that opened the stream.

    Attributes:
        client: Name of the client.
        priority: Larger goes first.
        digest: Hash of the token.
        is_told: Whether the stream knows that it may go on no longer.
    """

    def __init__(self, account: ClientAccount, digest: str) -> None:
        self.client = account.client.name
        self.priority = account.client.priority
        self.digest = digest
        self.is_told = False
        self.on_change: Callable[[], None] = lambda: None
        self._account = account

    def open(self, on_change: Callable[[], None]) -> None:
        """Begin to count the stream; see Allowance."""
        self._account.enter(self)
        self.on_change = on_change

    def num_ready(self, most: int) -> int:
        """Claim rows; see Allowance."""
        return self._account.num_ready(self, most)

    def take(self, count: int) -> None:
        """Spend them."""
        self._account.take(self, count)

    def refusal(self) -> ServiceError | None:
        """Why nothing more will be handed out."""
        return self._account.refusal(self)

    def close(self) -> None:
        """Count the stream no longer."""
        self._account.leave(self)
