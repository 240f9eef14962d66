"""The estimate of a concurrency limit: the most requests in flight that the upstream accepts."""

import math

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import ProbeSchedule
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind

_USUAL_KINDS = (GrantKind.PROVEN, GrantKind.UNPROVEN)


class ConcurrencyEstimate:
    """The concurrency limit, and the probes that ask for one more request in flight."""

    __slots__ = ("_window", "limit", "probes")

    def __init__(self, window: SlidingWindow) -> None:
        self._window = window
        self.limit = math.inf
        self.probes = ProbeSchedule(window)

    def explains(self, kind: GrantKind, in_flight: int) -> bool:
        """Returns whether the limit explains the refusal of a request beside `in_flight` others."""
        if kind is GrantKind.CONCURRENCY_PROBE:
            return True
        return self.limit < math.inf and kind in _USUAL_KINDS and in_flight >= max(2, self.limit - 1)

    def refused(self, in_flight: int, closed_s: float, now: float) -> None:
        """Notes a refusal that the limit explains."""
        if in_flight >= max(2, self.limit - 1):
            self.limit = min(self.limit, max(1, in_flight))
        self.probes.refused(now, max(closed_s, self._window.period_s))

    def suspect(self, closure: Closure, admitted: float) -> None:
        """Suspects a limit if all admitted requests were still in flight.

        Once a limit is known, a quarter of it in flight is enough.
        """
        in_flight, limit = closure.in_flight, self.limit
        if in_flight >= 2 and in_flight >= (admitted if limit == math.inf else limit / 4):
            self.limit = min(limit, in_flight)
