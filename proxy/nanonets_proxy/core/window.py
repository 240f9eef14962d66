"""So many requests in so much time: a count, a period, and the log of what was granted and not refused.

The log slides: a request counts for `period_s` from its grant. What keeps to it keeps to fixed windows of
the same size too, wherever they begin. With a count of 1 it is a pace.
"""

import math
from collections import OrderedDict, deque
from itertools import chain, islice

_MOST_KEPT = 8192  # entries; estimates need no more, and a larger count never binds within them
_ROUNDING_S = 1e-6


class Window:
    """`count` is inf while nothing is known. Requests are known by their serial numbers."""

    __slots__ = ("_hold_s", "_older", "_recent", "count", "granted", "period_s")

    def __init__(self) -> None:
        self.count = math.inf
        self.period_s = math.inf
        self._hold_s = math.inf
        self.granted = 0
        """How many were ever granted."""
        self._recent: OrderedDict[int, float] = OrderedDict()  # ordered by time of grant
        self._older: deque[tuple[int, float]] = deque(maxlen=_MOST_KEPT)  # no longer counting; for estimates

    def add(self, serial: int, now: float) -> None:
        self.granted += 1
        recent = self._recent
        recent[serial] = now
        if len(recent) > _MOST_KEPT and not len(recent) <= self.count < math.inf:
            self._older.append(recent.popitem(last=False))

    def remove(self, serial: int) -> None:
        """The upstream did not count it."""
        if self._recent.pop(serial, None) is None:
            self._older = deque((entry for entry in self._older if entry[0] != serial), _MOST_KEPT)

    def used(self, now: float) -> int:
        """How many count now."""
        while self._recent and self.frees_at_s <= now:
            self._older.append(self._recent.popitem(last=False))
        return len(self._recent)

    @property
    def frees_at_s(self) -> float:
        """When the oldest that counts will count no longer; inf if none does."""
        return next(iter(self._recent.values()), math.inf) + self._hold_s

    @property
    def oldest_s(self) -> float:
        """When the oldest that counts was granted; -inf if none does."""
        return next(iter(self._recent.values()), -math.inf)

    @property
    def first_s(self) -> float | None:
        """When the first one known was granted; None if none is."""
        if self._older:
            return self._older[0][1]
        return next(iter(self._recent.values()), None)

    @property
    def newest_s(self) -> float:
        return next(reversed(self._recent.values()), -math.inf)

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

    def granted_at_s(self, place: int, from_s: float) -> float:
        """When the one at this place of the line will go, if nothing goes before `from_s`. Takes the requests that
        count as evenly spread from the oldest to the newest."""
        counting = len(self._recent)
        oldest_s, newest_s = self.oldest_s, self.newest_s
        spread_s = newest_s - oldest_s if counting > 1 else 0.0
        if counting and newest_s + self._hold_s <= from_s:
            counting = 0
        elif counting and oldest_s + self._hold_s < from_s and spread_s:
            counting -= int(counting * (from_s - self._hold_s - oldest_s) / spread_s)
            oldest_s, spread_s = from_s - self._hold_s, newest_s + self._hold_s - from_s
        free = int(self.count) - counting
        if place <= free:
            return from_s
        periods, index = divmod(place - free - 1, int(self.count))
        if index >= counting:  # it follows one that is still to go
            return from_s + (periods + 1) * self._hold_s
        return (
            max(from_s, oldest_s + spread_s * index / max(1, counting - 1) + self._hold_s) + periods * self._hold_s
        )

    def set(self, count: float, period_s: float, guard_s: float = 0.0) -> None:
        """`guard_s`: how much longer a request is taken to count, as two may take different times to arrive."""
        self.count = count
        self._hold_s = period_s + guard_s
        if period_s > self.period_s:  # what had run out may count again
            entries = chain(self._older, self._recent.items())
            self._recent = OrderedDict(entries)
            self._older.clear()
        self.period_s = period_s

    def _backwards(self) -> "chain[float]":
        return chain(reversed(self._recent.values()), (granted_s for _, granted_s in reversed(self._older)))
