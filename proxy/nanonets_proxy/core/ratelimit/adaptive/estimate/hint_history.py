"""Whether the upstream's hints name the true end of a period, or are always the same length."""

import math
from collections import deque

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow

_KEPT = 4  # hints


class HintHistory:
    """Compares the hints of successive closures."""

    __slots__ = ("_end_s", "_lengths_s", "are_exact", "last_was_given")

    def __init__(self) -> None:
        self.are_exact = False
        """Whether the hints name the true end of a period."""
        self.last_was_given = False
        """Whether the latest closure had a hint."""
        self._lengths_s: deque[float] = deque(maxlen=_KEPT)
        self._end_s = -math.inf  # of the latest hint

    @property
    def longest_s(self) -> float:
        """The longest of the latest hints; 0 if there was none."""
        return max(self._lengths_s, default=0.0)

    def note(self, closure: Closure, ends_at_s: float, window: SlidingWindow) -> bool:
        """Notes the hint of a closure. Returns whether the closure ends at a known end of a period.

        Hints are exact if their lengths differ while their ends are whole periods apart.
        """
        self.last_was_given = closure.hinted
        if not closure.hinted:
            return False
        at_period_end = False
        if self._lengths_s and SMALL_COUNT <= window.count < math.inf:
            apart_s = ends_at_s - self._end_s
            periods = round(apart_s / window.period_s)
            difference = abs(closure.closed_s - self._lengths_s[-1]) / window.period_s
            error = abs(apart_s / window.period_s - periods)
            # The second condition is for hints in whole seconds.
            if periods >= 1 and ((difference > 0.001 and error <= 0.02) or (difference > 0.1 and error <= 0.1)):
                self.are_exact = True
            at_period_end = self.are_exact and error <= 0.1
        self._lengths_s.append(closure.closed_s)
        self._end_s = ends_at_s
        return at_period_end
