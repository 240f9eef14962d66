"""How long a refusal closes its scope.

| refusal | the closure lasts |
|---|---|
| with a hint | as long as the hint says |
| with a hint in whole seconds, at most 5 s | until the expected end of the period, if up to a second earlier |
| of a limit probe, without a hint | until the expected end of the period |
| any other without a hint | until the next usual end of a period, and at most 1, 2, 4, … 60 s |
| of a burst of which few were accepted, if it would last about a second | a quarter of that |

A burst of which few were accepted may have met a short interval between requests.
Hints in whole seconds are rounded up. If two recovery probes in a row are refused after such an early end, the next
hints are taken literally. Hints of 0 s count as no hint: they would cost one probe per round trip.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.lessons import learn_from
from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import next_usual_period_s, rounding_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_end import (
    estimated_end_s,
    expected_end_s,
    few_accepted,
    period_start_s,
)
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_fit import PeriodEnd
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

MAX_CHEAP_HINT_S = 5.0
"""With a longer hint, the risk of another refusal is not worth a second."""

_MAX_EARLY_REFUSALS = 2
_ABOUT_A_SECOND_S = 1.25
_SHORTENED = 0.25
_MIN_ROOM, _MAX_ROOM = 4.0, 64.0
_ROOM_PER_S = 4.0  # after a longer hint, the window is more likely to be empty

_RECOVERY_PROBE = GrantKind.RECOVERY_PROBE


class ClosureTimer:
    """Decides on the length of closures. Without hints it doubles from `backoff_first_s` up to `backoff_max_s`."""

    __slots__ = (
        "_backoff_s",
        "_early_refusals",
        "_first_refused_s",
        "_jitter",
        "_last_unhinted",
        "_opened_early",
        "_policy",
        "closure",
        "room_after_probe",
    )

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._jitter = jitter
        self._backoff_s = policy.backoff_first_s
        self._opened_early = False  # whether the latest closure ends before its hint
        self._early_refusals = 0
        self._first_refused_s = -math.inf  # of the latest closures without hints, one after the other
        self._last_unhinted: Closure | None = None
        self.closure: Closure | None = None
        """The latest closure, until its lesson is drawn."""
        self.room_after_probe = _MIN_ROOM
        """How many requests may be unconfirmed once the recovery probe is accepted."""

    def begin(
        self,
        kind: GrantKind,
        granted_at_s: float,
        now: float,
        hint_s: float | None,
        estimate: LimitEstimate,
        in_flight: int,
    ) -> float:
        """Begins the closure by a refusal of this kind of grant. Returns its end; `hint_s` counts from `now`."""
        closure = self.closure = self._close(kind, granted_at_s, now, hint_s, estimate)
        closure.in_flight = in_flight
        return closure.opens_at_s

    def late_refusal(
        self, kind: GrantKind, granted_at_s: float, now: float, hint_s: float | None, estimate: LimitEstimate
    ) -> float | None:
        """Notes a refusal of a request from before the closure. Returns when its hint ends; None if it has none."""
        closure = self.closure
        if closure is not None:
            closure.in_flight -= 1
            closure.refused += 1
            if closure.kind in LIMIT_PROBES:  # two refusals: the probe alone does not explain them
                closure.kind = GrantKind.PROVEN
        if hint_s is None or not 0 < hint_s < math.inf:
            return None
        return self._close(kind, granted_at_s, now, hint_s, estimate).opens_at_s

    def _close(
        self, kind: GrantKind, granted_at_s: float, now: float, hint_s: float | None, estimate: LimitEstimate
    ) -> Closure:
        if kind is _RECOVERY_PROBE and self._opened_early:
            self._early_refusals += 1
        self._opened_early = False
        if hint_s is not None and 0 < hint_s < math.inf:
            self.room_after_probe = max(_MIN_ROOM, min(_MAX_ROOM, _ROOM_PER_S * hint_s))
            opens_at_s = now + hint_s
            closure = Closure(kind, granted_at_s, hint_s, hinted=True, opens_at_s=opens_at_s)
            if hint_s <= MAX_CHEAP_HINT_S and closure.excess_s and self._early_refusals < _MAX_EARLY_REFUSALS:
                closure.opens_at_s = expected_end_s(estimate, closure)
                self._opened_early = closure.opens_at_s < opens_at_s
            return closure
        self.room_after_probe = _MIN_ROOM
        closed_s = estimated_end_s(estimate) - now
        if kind in LIMIT_PROBES:
            closed_s = max(closed_s, estimate.refusal_delay_s)
        else:
            closed_s = max(closed_s, self._backed_off_s(period_start_s(estimate), now))
        return Closure(kind, granted_at_s, closed_s, hinted=False, opens_at_s=now + closed_s)

    def adjust(self, estimate: LimitEstimate, opens_at_s: float) -> float:
        """Shortens the first closure while it has refused most of a burst. Returns when the scope opens."""
        closure = self.closure
        if closure is None or estimate.known:
            return opens_at_s
        few = few_accepted(estimate, closure) and closure.refused >= SMALL_COUNT
        full = closure.full
        if few and full is None:
            exact = closure.hinted and not rounding_s(closure.closed_s)
            if exact or closure.closed_s > _ABOUT_A_SECOND_S:
                return opens_at_s
            closure.full = replace(closure)
            closure.closed_s, closure.hinted = _SHORTENED * closure.closed_s, False
            closure.opens_at_s = closure.granted_at_s + closure.closed_s
        elif not few and full is not None:  # no request of the burst was accepted
            closure.closed_s, closure.hinted, closure.opens_at_s = full.closed_s, full.hinted, full.opens_at_s
            closure.full = None
            return max(opens_at_s, closure.opens_at_s)
        return closure.opens_at_s if closure.full is not None else opens_at_s

    def learn(self, estimate: LimitEstimate, now: float) -> None:
        """Draws the lesson of the closure, once the outcome of each request from before it is known."""
        if self.closure is not None:
            learn_from(estimate, self.closure, now)
            if self._last_unhinted is None:
                self._first_refused_s = self.closure.granted_at_s
            self._last_unhinted = None if self.closure.hinted else self.closure
            self.closure = None

    def probe_accepted(self, estimate: LimitEstimate, granted_at_s: float, now: float) -> None:
        """Notes that the recovery probe was accepted: the next closure without a hint is short again.

        After closures without hints, the period ended between the last refused probe and this one.
        """
        self._backoff_s = self._policy.backoff_first_s
        if self._opened_early:
            self._early_refusals = 0
        closure, self._last_unhinted = self._last_unhinted, None
        if closure is not None:
            end = PeriodEnd(self._first_refused_s, closure.granted_at_s, granted_at_s)
            fit = estimate.fit.note(end, estimate.window, estimate.refusal_delay_s / 2, closure.granted_at_s)
            estimate.learn_fit(fit, closure, now)

    def _backed_off_s(self, began_at_s: float | None, now: float) -> float:
        """Returns the length of the next closure, jitter included. None: it is unknown when the period began."""
        length_s = self._backoff_s
        if began_at_s is not None:
            length_s = min(length_s, began_at_s + next_usual_period_s(now - began_at_s) - now)
        self._backoff_s = min(2 * self._backoff_s, self._policy.backoff_max_s)
        return length_s + self._policy.backoff_jitter * self._jitter() * min(length_s, 1.0)
