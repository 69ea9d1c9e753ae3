"""Quotas: samples a day, counted so that neither a kill nor a power cut ever gives a client more than its quota.

What is handed out must have been written down before. Writing down each sample would cost a disk access a sample, so a
block of samples is reserved at a time: "used" on disk runs ahead of what was handed out by at most `block_size`
samples. A process that dies without giving its reservation back costs its client that many samples of the day, and
never the operator one.

    spent <= reserved (on disk) <= limit

A day is one of UTC. If the clock is set back, the later day stays in force.
"""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 86_400
_MIN_BLOCK, _MAX_BLOCK = 16, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DayUse:
    """What a client has used of a day, as it stands on disk.

    Attributes:
        day: Days since 1970-01-01, UTC.
        used: Samples handed out or reserved.
    """

    day: int
    used: int


def block_size(limit: int) -> int:
    """Samples reserved at a time: a hundredth of the quota, but 16 at least and 1,024 at most."""
    return min(max(limit // 100, _MIN_BLOCK), _MAX_BLOCK)


class DayQuota:
    """The samples of one client. Does no I/O: `wanted` says what to write down, `confirm` that it was.

    Args:
        limit: Samples a day.
        recorded: What the disk says; None for nothing.
        now_s: Seconds since 1970-01-01, UTC.
    """

    def __init__(self, limit: int, recorded: DayUse | None, now_s: float) -> None:
        self.limit = limit
        self._day = recorded.day if recorded else 0
        self._spent = self._reserved = recorded.used if recorded else 0
        self._turn(now_s)

    def available(self, now_s: float) -> int:
        """Samples that may be spent now, without writing anything."""
        self._turn(now_s)
        return max(0, min(self._reserved, self.limit) - self._spent)

    def is_spent(self, now_s: float) -> bool:
        """Whether nothing is left of the day."""
        self._turn(now_s)
        return self._spent >= self.limit

    def spend(self, count: int) -> None:
        """Spend samples, at most what was available.

        If the day turned since then, they count for the new one, for which nothing is reserved yet: only at that moment
        may the disk be behind, by what one step of the scheduler hands out.
        """
        self._spent += count

    def wanted(self, now_s: float) -> DayUse | None:
        """What to write down next: another block, if less than half a block is left; None if there is enough."""
        self._turn(now_s)
        block = block_size(self.limit)
        if self._reserved >= self.limit or self._reserved - self._spent >= max(1, block // 2):
            return None
        return DayUse(day=self._day, used=min(self.limit, self._spent + block))

    def confirm(self, use: DayUse) -> None:
        """Note that something was written down."""
        if use.day == self._day:
            self._reserved = max(self._reserved, use.used)

    def unreserved(self) -> DayUse:
        """What to write down when nothing more will be spent."""
        return DayUse(day=self._day, used=self._spent)

    def seconds_left(self, now_s: float) -> float:
        """Time until the day ends."""
        self._turn(now_s)
        return max(0.0, (self._day + 1) * DAY_S - now_s)

    def _turn(self, now_s: float) -> None:
        """Begin a new day where one has begun."""
        today = int(now_s // DAY_S)
        if today > self._day:
            self._day, self._spent, self._reserved = today, 0, 0
