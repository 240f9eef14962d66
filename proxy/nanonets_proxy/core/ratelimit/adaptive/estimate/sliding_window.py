"""A sliding window: at most `count` units in any `period_s`, with the log of grants.

A request costs one unit, or as many as its ticket says. It counts for `period_s` from its grant. Requests that keep
to a sliding window also keep to a fixed window of the same size, wherever it begins. A count of 1 is a minimum
interval between requests.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, islice, takewhile

_MAX_KEPT = 8192  # entries of each log, or `count` if that is larger; estimates need no more
_ROUNDING_S = 1e-6

_Grant = tuple[float, float]
"""The instant and the cost."""


class SlidingWindow:
    """Logs the instants of grants. `count` and `period_s` are inf while nothing is known."""

    __slots__ = (
        *("counted_for_s", "_max_recent", "_older", "_recent", "_used"),
        *("count", "granted", "granted_units", "period_s", "refused_cost"),
    )

    def __init__(self) -> None:
        self.count = math.inf
        self.period_s = math.inf
        self.counted_for_s = math.inf
        self.granted = 0
        """The number of all grants so far."""
        self.granted_units: float = 0
        """The units of all grants so far."""
        self.refused_cost: float = 1
        """The cost of the request that was refused last: it did not fit beside the units that counted."""
        self._max_recent: float = _MAX_KEPT
        self._recent: deque[_Grant] = deque()  # the grants that count, in order
        self._used: float = 0  # the units of `_recent`
        self._older: deque[_Grant] = deque(maxlen=_MAX_KEPT)  # grants that no longer count, for the estimates

    def add(self, now: float, cost: float = 1) -> int:
        """Logs a grant. Returns its serial number, from 1."""
        recent = self._recent
        recent.append((now, cost))
        self._used += cost
        if len(recent) > self._max_recent:
            self._retire_oldest()
        self.granted_units += cost
        self.granted = serial = self.granted + 1
        return serial

    def merge(self, grants: Iterable[_Grant]) -> None:
        """Logs grants of the past, which another log had. They may be in any order."""
        merged = sorted(chain(self._recent, grants))
        self.granted += len(merged) - len(self._recent)
        units = sum(cost for _, cost in merged)
        self.granted_units += units - self._used
        self._recent, self._used = deque(merged), units
        while len(self._recent) > self._max_recent:
            self._retire_oldest()

    def remove(self, granted_s: float, cost: float = 1) -> None:
        """Removes one grant of this instant and cost: the upstream did not count that request."""
        log, index = self._find(granted_s, cost)
        if index is not None:
            del log[index]
            if log is self._recent:
                self._used -= cost

    def move(self, granted_s: float, cost: float, sent_s: float) -> None:
        """Moves one grant of this instant and cost to the instant at which its request was sent."""
        log, index = self._find(granted_s, cost)
        if index is None:
            return
        del log[index]
        recent = self._recent
        if log is not recent and recent and recent[0][0] < sent_s:  # younger than a request that counts
            self._used += cost
            log = recent
        log.insert(bisect_left(log, (sent_s,)), (sent_s, cost))

    def change_cost(self, granted_s: float, cost: float, true_cost: float) -> None:
        """Corrects the cost of one grant of this instant and cost."""
        self.granted_units += true_cost - cost
        log, index = self._find(granted_s, cost)
        if index is not None:
            log[index] = (granted_s, true_cost)
            if log is self._recent:
                self._used += true_cost - cost

    @property
    def logged(self) -> int:
        """The number of grants in the log."""
        return len(self._recent) + len(self._older)

    def _find(self, granted_s: float, cost: float) -> tuple[deque[_Grant], int | None]:
        """Returns the log with one grant of this instant and cost, and its index there; None if there is none."""
        for log in (self._recent, self._older):
            index = bisect_left(log, (granted_s - _ROUNDING_S,))  # instants from a snapshot are rounded
            while index < len(log) and log[index][0] <= granted_s + _ROUNDING_S:
                if log[index][1] == cost:
                    return log, index
                index += 1
        return self._older, None

    def age(self, seconds: float) -> None:
        """Moves all grants this far into the past."""
        self._recent = deque((granted_s - seconds, cost) for granted_s, cost in self._recent)
        self._older = deque(((granted_s - seconds, cost) for granted_s, cost in self._older), _MAX_KEPT)

    def used(self, now: float) -> float:
        """Returns how many units count now."""
        recent = self._recent
        while recent and recent[0][0] + self.counted_for_s <= now:
            self._retire_oldest()
        return self._used

    def retire_before(self, until_s: float) -> None:
        """Stops counting the grants before this instant: a period of the upstream has ended since."""
        while self._recent and self._recent[0][0] < until_s:
            self._retire_oldest()

    def count_all(self) -> None:
        """Counts all grants in the log again, as far as they are younger than a period."""
        self._recent.extendleft(reversed(self._older))
        self._older.clear()
        self._used = sum(cost for _, cost in self._recent)

    def _retire_oldest(self) -> None:
        grant = self._recent.popleft()
        self._used = self._used - grant[1] if self._recent else 0  # fractions leave no rounding error behind
        self._older.append(grant)

    @property
    def frees_at_s(self) -> float:
        """When the oldest request that counts stops counting; inf if none counts."""
        return self._recent[0][0] + self.counted_for_s if self._recent else math.inf

    @property
    def oldest_s(self) -> float:
        """The grant of the oldest request that counts; -inf if none counts."""
        return self._recent[0][0] if self._recent else -math.inf

    @property
    def newest_s(self) -> float:
        """The grant of the newest request that counts; -inf if none counts."""
        return self._recent[-1][0] if self._recent else -math.inf

    @property
    def first_known_s(self) -> float | None:
        """The oldest grant in the log; None if the log is empty."""
        log = self._older or self._recent
        return log[0][0] if log else None

    def run_start_s(self, max_gap_s: float, until_s: float) -> float | None:
        """Returns the oldest of the newest grants between which no gap is longer; None if the log is empty.

        Grants after `until_s` count as granted then.
        """
        start_s = None
        for granted_s, _ in self._newest_first():
            if start_s is not None and start_s - granted_s > max_gap_s:
                break
            start_s = min(granted_s, until_s)
        return start_s

    def grants_since(self, since_s: float) -> list[tuple[float, float]]:
        """Returns the instant and the cost of each grant in the log from that instant on, the oldest first."""
        grants = list(takewhile(lambda grant: grant[0] >= since_s, self._newest_first()))
        grants.reverse()
        return grants

    def granted_since(self, since_s: float) -> float:
        """Returns how many units the log has from that instant on."""
        units: float = 0
        for granted_s, cost in self._newest_first():
            if granted_s < since_s - _ROUNDING_S:
                break
            units += cost
        return units

    def units_since(self, instants_s: Sequence[float], until_s: float = math.inf) -> list[float]:
        """Returns how many units the log has from each instant on, up to `until_s`. The latest instant is first."""
        units: float = 0
        found: list[float] = []
        for granted_s, cost in self._newest_first():
            while len(found) < len(instants_s) and granted_s < instants_s[len(found)] - _ROUNDING_S:
                found.append(units)
            if len(found) == len(instants_s):
                break
            if granted_s <= until_s:
                units += cost
        return found + [units] * (len(instants_s) - len(found))

    def newest_units(self, grants: int) -> float:
        """Returns the units of this many of the newest grants in the log."""
        return sum(cost for _, cost in islice(self._newest_first(), grants))

    def nth_newest_s(self, n: float) -> float | None:
        """Returns the grant that must stop counting before the refused request fits into `n` units.

        If each request costs 1, that is the n-th newest grant, or the oldest if the log has fewer. None if the log
        is empty.
        """
        nth_s, units = None, self.refused_cost
        for granted_s, cost in self._newest_first():
            units += cost
            nth_s = granted_s
            if units > n:
                break
        return nth_s

    def forecast_at_s(self, units: float, from_s: float) -> float:
        """Returns when this many more units will have gone, if none goes before `from_s`.

        Assumes that the units that count are spread evenly between the oldest and the newest.
        """
        counting = self._used
        oldest_s, newest_s = self.oldest_s, self.newest_s
        spread_s = newest_s - oldest_s if counting > 1 else 0.0
        if counting and newest_s + self.counted_for_s <= from_s:
            counting = 0
        elif counting and oldest_s + self.counted_for_s < from_s and spread_s:
            counting -= int(counting * (from_s - self.counted_for_s - oldest_s) / spread_s)
            oldest_s, spread_s = from_s - self.counted_for_s, newest_s + self.counted_for_s - from_s
        free = int(self.count) - counting
        if units <= free:
            return from_s
        # More units than the count may count, after a lower count was learned. All of them leave within a period.
        periods, index = divmod(units - max(free, 0) - 1, int(self.count))
        index += max(0, -free)
        if index >= counting:  # the last unit takes the place of a request that still waits
            return from_s + (periods + 1) * self.counted_for_s
        first_free_s = oldest_s + spread_s * index / max(1, counting - 1) + self.counted_for_s
        return max(from_s, first_free_s) + periods * self.counted_for_s

    def set(self, count: float, period_s: float, guard_s: float = 0.0) -> None:
        """Sets the limit. Each request counts for `guard_s` longer, since travel times to the upstream differ."""
        self.count = count
        self._max_recent = max(_MAX_KEPT, count) if count < math.inf else _MAX_KEPT
        self.counted_for_s = period_s + guard_s
        if period_s > self.period_s:  # older requests may count again
            self.count_all()
        self.period_s = period_s

    def _newest_first(self) -> "chain[_Grant]":
        return chain(reversed(self._recent), reversed(self._older))
