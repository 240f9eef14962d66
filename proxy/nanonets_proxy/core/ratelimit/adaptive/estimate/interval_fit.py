"""Whether the limit is a least interval between two requests, as with a token bucket of one token.

Then each interval between accepted requests is longer than any interval before a refused one. With another limit,
that is unlikely after a few refusals: a window or a larger bucket accepts some requests that come together.
"""

import math
from typing import Final

from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow

_LEAST_REFUSALS: Final = 3
_MOST_REFUSALS: Final = 16  # the fit is for the first refusals: a limit may change later
_LEAST_S: Final = 2.0  # times the tolerance: a shorter interval is no more than the difference of travel times


class IntervalFit:
    """Compares the intervals before accepted and before refused requests."""

    __slots__ = ("_accepted_s", "_noted", "_refused_s", "_since_s")

    def __init__(self) -> None:
        self._noted = 0
        self._since_s = -math.inf  # the latest refusal
        self._accepted_s = math.inf  # the shortest interval before an accepted request
        self._refused_s = 0.0  # the longest interval before a refused request

    def stop(self) -> None:
        """Finds nothing from now on: some refusals do not concern the limit, or it is no least interval."""
        self._noted = _MOST_REFUSALS

    def note(self, refused_at_s: float, window: SlidingWindow, tolerance_s: float) -> float | None:
        """Notes the grant of a refused request. Returns the shortest accepted interval if it may be the limit.

        Travel times differ by `tolerance_s`.
        """
        if self._noted == _MOST_REFUSALS:
            return None
        self._noted += 1
        previous_s = None
        for granted_s, cost in window.grants_since(self._since_s):
            if cost != 1:
                self.stop()
                return None
            if granted_s > refused_at_s + tolerance_s:
                break
            # A request that was granted at most `tolerance_s` later may have arrived before the refused one.
            if previous_s is not None:
                self._accepted_s = min(self._accepted_s, granted_s - previous_s)
            previous_s = granted_s
        if previous_s is not None:
            self._refused_s = max(self._refused_s, refused_at_s - previous_s)
            self._since_s = previous_s
        if self._refused_s > self._accepted_s + tolerance_s:
            self.stop()
            return None
        found = self._noted >= _LEAST_REFUSALS and _LEAST_S * tolerance_s < self._accepted_s < math.inf
        return self._accepted_s if found else None
