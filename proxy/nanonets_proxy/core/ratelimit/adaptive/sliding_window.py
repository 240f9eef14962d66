"""So many requests in so much time: a count, a period, and the log of what was granted and not refused.

The log slides: a request counts for `period_s` from its grant. What keeps to it keeps to fixed windows of
the same size too, wherever they begin. With a count of 1 it is a pace.
"""

import math
from bisect import bisect_left
from collections import deque
from itertools import chain, islice

_MAX_KEPT = 8192  # entries; estimates need no more, and a larger count never binds within them
_ROUNDING_S = 1e-6


class SlidingWindow:
    """`count` is inf while nothing is known. The log is of instants alone: those of one instant are alike."""

    __slots__ = ("_counted_for_s", "_max_recent", "_older", "_recent", "count", "granted", "period_s")

    def __init__(self) -> None:
        self.count = math.inf
        self.period_s = math.inf
        self._counted_for_s = math.inf
        self.granted = 0
        """How many were ever granted."""
        self._max_recent: float = _MAX_KEPT
        self._recent: deque[float] = deque()  # when those that count were granted, in order
        self._older: deque[float] = deque(maxlen=_MAX_KEPT)  # no longer counting; for estimates

    def add(self, now: float) -> int:
        """One more is granted. Gives its serial number, from 1."""
        recent = self._recent
        recent.append(now)
        if len(recent) > self._max_recent:
            self._older.append(recent.popleft())
        self.granted = serial = self.granted + 1
        return serial

    def remove(self, granted_s: float) -> None:
        """The upstream did not count the one granted then."""
        for log in (self._recent, self._older):
            index = bisect_left(log, granted_s)
            if index < len(log) and log[index] == granted_s:
                del log[index]
                return

    def used(self, now: float) -> int:
        """How many count now."""
        recent = self._recent
        while recent and recent[0] + self._counted_for_s <= now:
            self._older.append(recent.popleft())
        return len(recent)

    @property
    def frees_at_s(self) -> float:
        """When the oldest that counts will count no longer; inf if none does."""
        return self._recent[0] + self._counted_for_s if self._recent else math.inf

    @property
    def oldest_s(self) -> float:
        """When the oldest that counts was granted; -inf if none does."""
        return self._recent[0] if self._recent else -math.inf

    @property
    def first_known_s(self) -> float | None:
        """When the first one known was granted; None if none is."""
        log = self._older or self._recent
        return log[0] if log else None

    @property
    def newest_s(self) -> float:
        return self._recent[-1] if self._recent else -math.inf

    def granted_since(self, since_s: float) -> int:
        """How many were granted from that instant on, whether they still count or not."""
        count = 0
        for granted_s in self._backwards():
            if granted_s < since_s - _ROUNDING_S:
                break
            count += 1
        return count

    def nth_newest_s(self, n: int) -> float | None:
        """When the n-th last was granted; the first one known if there are fewer, None if there is none."""
        last = deque(islice(self._backwards(), n), 1)
        return last[0] if last else None

    def forecast_at_s(self, position: int, from_s: float) -> float:
        """When the one at this place of the line will go, if nothing goes before `from_s`. Takes the requests that
        count as evenly spread from the oldest to the newest."""
        counting = len(self._recent)
        oldest_s, newest_s = self.oldest_s, self.newest_s
        spread_s = newest_s - oldest_s if counting > 1 else 0.0
        if counting and newest_s + self._counted_for_s <= from_s:
            counting = 0
        elif counting and oldest_s + self._counted_for_s < from_s and spread_s:
            counting -= int(counting * (from_s - self._counted_for_s - oldest_s) / spread_s)
            oldest_s, spread_s = from_s - self._counted_for_s, newest_s + self._counted_for_s - from_s
        free = int(self.count) - counting
        if position <= free:
            return from_s
        periods, index = divmod(position - free - 1, int(self.count))
        if index >= counting:  # it follows one that is still to go
            return from_s + (periods + 1) * self._counted_for_s
        return (
            max(from_s, oldest_s + spread_s * index / max(1, counting - 1) + self._counted_for_s)
            + periods * self._counted_for_s
        )

    def set(self, count: float, period_s: float, guard_s: float = 0.0) -> None:
        """`guard_s`: how much longer a request is taken to count, as two may take different times to arrive."""
        self.count = count
        self._max_recent = max(_MAX_KEPT, count)
        self._counted_for_s = period_s + guard_s
        if period_s > self.period_s:  # what had run out may count again
            self._recent.extendleft(reversed(self._older))
            self._older.clear()
        self.period_s = period_s

    def _backwards(self) -> "chain[float]":
        return chain(reversed(self._recent), reversed(self._older))
