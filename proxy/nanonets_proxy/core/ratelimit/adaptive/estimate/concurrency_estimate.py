"""The estimate of a concurrency limit: the most requests in flight that the upstream accepts."""

import math

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import ProbeSchedule
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind

_USUAL_KINDS = (GrantKind.PROVEN, GrantKind.UNPROVEN)


class ConcurrencyEstimate:
    """The concurrency limit, and the probes that ask for one more request in flight."""

    __slots__ = ("_raised", "_window", "limit", "probes")

    def __init__(self, window: SlidingWindow) -> None:
        self._window = window
        self.limit = math.inf
        self.probes = ProbeSchedule(window)
        self._raised = False
        """Whether the limit was raised since its latest refusal. The probe may have found a place only because
        another request had ended upstream, with its response still on the way."""

    def explains(self, kind: GrantKind, in_flight: int) -> bool:
        """Returns whether the limit explains the refusal of a request beside `in_flight` others."""
        if kind is GrantKind.CONCURRENCY_PROBE:
            return True
        # While the limit is doubtful, it explains the refusal of another probe better than what that one asks for.
        may_explain = kind in _USUAL_KINDS or self._raised
        return self.limit < math.inf and may_explain and in_flight >= max(2, self.limit - 1)

    def probe_accepted(self) -> None:
        """Notes that one more request in flight was accepted."""
        self.limit += 1
        self._raised = True

    def refused(self, in_flight: int, closed_s: float, now: float) -> None:
        """Notes a refusal that the limit explains."""
        self._raised = False
        if in_flight >= max(2, self.limit - 1):
            self.limit = min(self.limit, in_flight)
        self.probes.refused(now, max(closed_s, self._window.period_s))

    def suspect(self, closure: Closure, admitted: float) -> None:
        """Suspects a limit if all admitted requests were still in flight.

        Once a limit is known, a quarter of it in flight is enough.
        """
        in_flight, limit = closure.in_flight, self.limit
        if in_flight >= 2 and in_flight >= (admitted if limit == math.inf else limit / 4):
            self.limit = min(limit, in_flight)
