"""A quota that is used up for longer than any request may wait: for the day, for the month, or for good.

Its scope is closed, and callers get the 429 at once instead of waiting. The upstream seldom says when the quota is
available again. So new requests test it: one each time that a probe is due, at growing intervals.
"""

import math

FIRST_DISTANCE_S = 60.0
"""The time from the first refusal to the first probe."""


class LongQuota:
    """The closure of one scope by a used-up quota."""

    __slots__ = ("_distance_s", "_max_distance_s", "_probe_at_s", "until_s")

    def __init__(self, max_distance_s: float) -> None:
        self._max_distance_s = max_distance_s
        self._distance_s = min(FIRST_DISTANCE_S, max_distance_s)
        self._probe_at_s = -math.inf
        self.until_s = -math.inf
        """When the quota is available again, according to the upstream; -inf if it does not say."""

    def limit_distance(self, max_distance_s: float) -> None:
        """Sets another longest time between probes, for the probes after the next one."""
        self._max_distance_s = max_distance_s
        self._distance_s = min(self._distance_s, max_distance_s)

    def refused(self, granted_at_s: float, now: float, hint_s: float | None) -> float:
        """Notes a refusal, with its hint. Returns when the next probe is due.

        A request that was granted before the last probe was due is no probe: it was in flight with others.
        """
        self.until_s = -math.inf if hint_s is None else now + hint_s
        if granted_at_s >= self._probe_at_s:
            self._probe_at_s = now + self._distance_s
            self._distance_s = min(2 * self._distance_s, self._max_distance_s)
        if hint_s:
            self._probe_at_s = min(self._probe_at_s, self.until_s)
        return self._probe_at_s

    def note_sleep(self, slept_s: float) -> None:
        """Notes that the machine slept."""
        self.until_s -= slept_s
        self._probe_at_s -= slept_s
