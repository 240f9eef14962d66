"""A sliding window: at most `count` requests in any `period_s`, with the log of grants.

A request counts for `period_s` from its grant. Requests that keep to a sliding window also keep to a fixed window
of the same size, wherever it begins. A count of 1 is a minimum interval between requests.
"""

import math
from bisect import bisect_left
from collections import deque
from itertools import chain, islice

_MAX_KEPT = 8192  # entries of each log, or `count` if that is larger; estimates need no more
_ROUNDING_S = 1e-6


class SlidingWindow:
    """Logs the instants of grants. `count` and `period_s` are inf while nothing is known."""

    __slots__ = ("_counted_for_s", "_max_recent", "_older", "_recent", "count", "granted", "period_s")

    def __init__(self) -> None:
        self.count = math.inf
        self.period_s = math.inf
        self._counted_for_s = math.inf
        self.granted = 0
        """The number of all grants so far."""
        self._max_recent: float = _MAX_KEPT
        self._recent: deque[float] = deque()  # the grants that count, in order
        self._older: deque[float] = deque(maxlen=_MAX_KEPT)  # grants that no longer count, for the estimates

    def add(self, now: float) -> int:
        """Logs a grant. Returns its serial number, from 1."""
        recent = self._recent
        recent.append(now)
        if len(recent) > self._max_recent:
            self._older.append(recent.popleft())
        self.granted = serial = self.granted + 1
        return serial

    def remove(self, granted_s: float) -> None:
        """Removes one grant of this instant: the upstream did not count that request."""
        for log in (self._recent, self._older):
            index = bisect_left(log, granted_s)
            if index < len(log) and log[index] == granted_s:
                del log[index]
                return

    def age(self, seconds: float) -> None:
        """Moves all grants this far into the past."""
        self._recent = deque(granted_s - seconds for granted_s in self._recent)
        self._older = deque((granted_s - seconds for granted_s in self._older), _MAX_KEPT)

    def used(self, now: float) -> int:
        """Returns how many requests count now."""
        recent = self._recent
        while recent and recent[0] + self._counted_for_s <= now:
            self._older.append(recent.popleft())
        return len(recent)

    @property
    def frees_at_s(self) -> float:
        """When the oldest request that counts stops counting; inf if none counts."""
        return self._recent[0] + self._counted_for_s if self._recent else math.inf

    @property
    def oldest_s(self) -> float:
        """The grant of the oldest request that counts; -inf if none counts."""
        return self._recent[0] if self._recent else -math.inf

    @property
    def newest_s(self) -> float:
        """The grant of the newest request that counts; -inf if none counts."""
        return self._recent[-1] if self._recent else -math.inf

    @property
    def first_known_s(self) -> float | None:
        """The oldest grant in the log; None if the log is empty."""
        log = self._older or self._recent
        return log[0] if log else None

    def granted_since(self, since_s: float) -> int:
        """Returns how many grants the log has from that instant on."""
        count = 0
        for granted_s in self._newest_first():
            if granted_s < since_s - _ROUNDING_S:
                break
            count += 1
        return count

    def nth_newest_s(self, n: int) -> float | None:
        """Returns the n-th newest grant; the oldest if the log has fewer, None if it is empty."""
        last = deque(islice(self._newest_first(), n), 1)
        return last[0] if last else None

    def forecast_at_s(self, position: int, from_s: float) -> float:
        """Returns when the request at this position in the queue can go, if none goes before `from_s`.

        Assumes that the requests that count are spread evenly between the oldest and the newest.
        """
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
        if index >= counting:  # it takes the place of a request that still waits
            return from_s + (periods + 1) * self._counted_for_s
        first_free_s = oldest_s + spread_s * index / max(1, counting - 1) + self._counted_for_s
        return max(from_s, first_free_s) + periods * self._counted_for_s

    def set(self, count: float, period_s: float, guard_s: float = 0.0) -> None:
        """Sets the limit. Each request counts for `guard_s` longer, since travel times to the upstream differ."""
        self.count = count
        self._max_recent = max(_MAX_KEPT, count) if count < math.inf else _MAX_KEPT
        self._counted_for_s = period_s + guard_s
        if period_s > self.period_s:  # older requests may count again
            self._recent.extendleft(reversed(self._older))
            self._older.clear()
        self.period_s = period_s

    def _newest_first(self) -> "chain[float]":
        return chain(reversed(self._recent), reversed(self._older))
