"""How long a refusal closes its scope.

| refusal | the closure lasts |
|---|---|
| with a hint | as long as the hint says |
| the first, with a hint in whole seconds, at most 5 s | until an early try is accepted |
| another one with such a hint | until the expected end of the period, if up to a second earlier |
| of a limit probe, or if the quota varies, without a hint | until the expected end of the period |
| any other without a hint | until the next usual end of a period, and at most 1, 2, 4, … 60 s (`backoff.py`) |
| of any kind, with a refuted hint (`hint_history.py`) | as without a hint, but at least as long as it says |
| of a burst of which few were accepted, if it would last about a second | a quarter of that |

A burst of which few were accepted may have met a short interval between requests.

Hints in whole seconds are rounded up, so a period ends at an unknown instant of the last second. The *early tries*
find it: a recovery probe each eighth of this second. A refused one teaches nothing. The second closure has them too
if no usual period ends then, and nothing is proven. If an early try is accepted but the requests after it are
refused, no period ended, as with a token bucket: the earlier requests count again. If two other recovery probes in
a row are refused after an early end, the next hints are taken literally. So upstreams that restart a period at each
refusal delay the first requests by one period at most.

If the closure that ends a cold start has a hint, more requests follow its accepted probe: as many as a cold start
may send, less those that were refused. A token bucket refuses most of them.

Hints of 0 s count as no hint: they would cost one probe per round trip.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from nanonets_proxy.core.ratelimit.adaptive.backoff import Backoff
from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.lessons import learn_from
from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import is_usual, rounding_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import CHEAP_S, FIRST_PROBE_AFTER, LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_end import (
    expected_end_s,
    few_accepted,
    has_room_at_s,
    note_early_end,
    period_start_s,
)
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_fit import PeriodEnd, PeriodFit
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

MAX_CHEAP_HINT_S = 5.0
"""With a longer hint, the risk of another refusal is not worth a second."""

_MAX_EARLY_REFUSALS = 2
_MOST_TRIED = 2  # closures with early tries
_TRY_S = 0.125  # between early tries: each costs one refusal, and the accepted one is half of this late on average
_ABOUT_A_SECOND_S = 1.25
_SHORTENED = 0.25
_MIN_ROOM, _MAX_ROOM = 4.0, 64.0
_ROOM_PER_S, _FIRST_ROOM_PER_S = 4.0, 16.0  # after a longer hint, the window is more likely to be empty

_RECOVERY_PROBE = GrantKind.RECOVERY_PROBE


def _told_s(hint_s: float | None) -> float:
    """Returns the length of a hint that can be used; 0 if there is none."""
    return hint_s if hint_s is not None and 0 < hint_s < math.inf else 0.0


class ClosureTimer:
    """Decides on the length of closures."""

    __slots__ = (
        *("_backoff", "_early_refusals", "_ended_early", "_expected_end_s", "_first_hint_s", "_first_refused_s"),
        *("_is_unfounded", "_last_unhinted", "_opened_early", "_policy", "_tried"),
        *("closure", "hinted_end_s", "refusals_left", "room_after_probe"),
    )

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._backoff = Backoff(policy, jitter)
        self._opened_early = False  # whether the latest closure ends before its hint
        self._early_refusals = 0
        self._first_hint_s = 0.0  # of the closure that taught the first estimate; 0 if it had none
        self._first_refused_s: float | None = None  # of the latest closures, one after the other
        self._is_unfounded = False  # whether the estimate rests on closures without hints, or on refuted hints
        self._last_unhinted: Closure | None = None
        self._expected_end_s: float | None = None
        """When the early tries expect the end of a period that began with the first request; None: no tries."""
        self._ended_early = False  # whether an early try was accepted
        self._tried = 0  # closures with early tries since nothing was known
        self.closure: Closure | None = None
        """The latest closure, until its lesson is drawn."""
        self.hinted_end_s = -math.inf
        """When the latest closure ends by its hint. The scope may open earlier."""
        self.room_after_probe = _MIN_ROOM
        """How many requests may be unconfirmed once the recovery probe is accepted."""
        self.refusals_left = 0
        """How many more refusals the first meeting with the limit may cost; 0 or less: it is over."""

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
        self.refusals_left -= 1
        return closure.opens_at_s

    def late_refusal(
        self, kind: GrantKind, granted_at_s: float, now: float, hint_s: float | None, estimate: LimitEstimate
    ) -> float | None:
        """Notes a refusal of a request from before the closure. Returns when its hint ends; None if it has none."""
        self.refusals_left -= 1
        closure = self.closure
        if closure is not None:
            closure.in_flight -= 1
            closure.refused += 1
            if closure.kind in LIMIT_PROBES:  # two refusals: the probe alone does not explain them
                closure.kind = GrantKind.PROVEN
        told_s = _told_s(hint_s)
        if not told_s:
            return None
        if estimate.hints.is_refuted(told_s):
            return now + told_s
        return self._close(kind, granted_at_s, now, hint_s, estimate).opens_at_s

    def _close(
        self, kind: GrantKind, granted_at_s: float, now: float, hint_s: float | None, estimate: LimitEstimate
    ) -> Closure:
        is_recovery = kind is _RECOVERY_PROBE
        is_before_end = granted_at_s < self.hinted_end_s and self._expected_end_s is None
        was_early = is_recovery and self._opened_early and is_before_end
        self._early_refusals += was_early
        self._opened_early = False
        if is_recovery:
            self._backoff.probe_refused()
        told_s = _told_s(hint_s)
        # In the last second of a hint, a true one in whole seconds would say 1 s.
        after_previous = is_recovery and (granted_at_s >= self.hinted_end_s or (was_early and told_s > 1))
        refutes = estimate.hints.compare(told_s, after_previous=after_previous)
        if refutes and (not estimate.known or told_s == self._first_hint_s):
            # An overload may send such hints too, so they refute no estimate that others taught.
            estimate.fit, self._is_unfounded = PeriodFit(), True
        if told_s:  # a refuted hint says at least that the upstream refuses requests before its end
            self.hinted_end_s = now + told_s
        if not told_s or estimate.hints.is_refuted(told_s):
            self.room_after_probe = _MIN_ROOM
            closed_s = max(told_s, self._unhinted_s(kind, estimate, now))
            return Closure(kind, granted_at_s, closed_s, hinted=False, opens_at_s=now + closed_s)
        is_first = not estimate.known and told_s <= MAX_CHEAP_HINT_S
        room = (_FIRST_ROOM_PER_S if is_first else _ROOM_PER_S) * told_s
        least = self.room_after_probe if self._is_early_try(kind) else _MIN_ROOM
        self.room_after_probe = max(least, min(_MAX_ROOM, room))
        opens_at_s = self.hinted_end_s
        closure = Closure(kind, granted_at_s, told_s, hinted=True, opens_at_s=opens_at_s, was_early=was_early)
        closure.names_period = estimate.hints.names_period(told_s)
        tries_early = self._early_refusals < _MAX_EARLY_REFUSALS and not self._policy.is_share
        if told_s <= MAX_CHEAP_HINT_S and rounding_s(told_s) and tries_early:
            closure.opens_at_s = self._early_end_s(estimate, closure)
            self._opened_early = closure.opens_at_s < opens_at_s
        return closure

    def _is_early_try(self, kind: GrantKind) -> bool:
        return kind is _RECOVERY_PROBE and self._expected_end_s is not None

    def _unhinted_s(self, kind: GrantKind, estimate: LimitEstimate, now: float) -> float:
        """Returns the length of the next closure without a hint."""
        room_in_s = has_room_at_s(estimate) - now
        if kind in LIMIT_PROBES or (estimate.quota_varies and room_in_s > 0):
            return max(room_in_s, estimate.refusal_delay_s)
        return max(room_in_s, self._backoff.next_s(estimate, now))

    def _early_end_s(self, estimate: LimitEstimate, closure: Closure) -> float:
        """Returns when to try, within the last second of the hint."""
        hinted_s, granted_at_s = closure.opens_at_s, closure.granted_at_s
        earliest_s = granted_at_s + closure.closed_s - rounding_s(closure.closed_s)
        expected_s = self._expected_end_s
        if expected_s is None or closure.kind is not _RECOVERY_PROBE:
            self._expected_end_s = None
            expected_s = expected_end_s(estimate, closure)
            if not self._may_try(estimate, expected_s):
                return expected_s
            self._expected_end_s = expected_s
        elif granted_at_s >= expected_s:
            self._expected_end_s = None
            self._early_refusals = _MAX_EARLY_REFUSALS
            return hinted_s
        try_s = max(earliest_s, granted_at_s) + _TRY_S
        # The refusal of a try must be known before the expected end.
        if try_s + 2 * estimate.refusal_delay_s < expected_s:
            return try_s
        return min(expected_s, hinted_s)

    def _may_try(self, estimate: LimitEstimate, expected_s: float) -> bool:
        """Returns whether to try for the end of the period before `expected_s`."""
        began_at_s = period_start_s(estimate)
        if began_at_s is None or not estimate.known:
            return began_at_s is not None
        if estimate.proven or self._tried >= _MOST_TRIED:
            return False
        return not is_usual(math.floor(expected_s - began_at_s))

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
        if closure.full is None:
            return opens_at_s
        self._expected_end_s = None
        return closure.opens_at_s

    def learn(self, estimate: LimitEstimate, now: float) -> None:
        """Draws the lesson of the closure, once the outcome of each request from before it is known."""
        closure, self.closure = self.closure, None
        if closure is None:
            return
        if not closure.hinted:
            self.refusals_left = 0
        if self._first_refused_s is None:
            self._first_refused_s = closure.granted_at_s
            self._is_unfounded = not estimate.known or (self._is_unfounded and not estimate.proven)
        if not estimate.known:
            self._first_hint_s = closure.closed_s if closure.hinted else 0.0
            self._tried = 0
        ended_early, self._ended_early = self._ended_early, False
        if ended_early and estimate.known and closure.kind is GrantKind.UNPROVEN:
            estimate.window.count_all()  # no period ended: some room had come back
        elif not self._is_early_try(closure.kind):  # a refused early try has no lesson
            expected_s = self._expected_end_s if closure.closed_s > CHEAP_S else None
            # Where the first limit probes must wait, early tries must not shift them to the middle of a period.
            learn_from(estimate, closure, now if expected_s is None else max(now, expected_s))
        if closure.kind is not _RECOVERY_PROBE:
            self._backoff.closed(closure, estimate)
        self._last_unhinted = None if closure.hinted else closure

    def probe_accepted(self, estimate: LimitEstimate, granted_at_s: float, now: float) -> None:
        """Notes that the recovery probe was accepted: the next closure without a hint is short again.

        After closures without hints, the period ended between the last refused probe and this one.
        """
        self.room_after_probe, self.refusals_left = max(self.room_after_probe, self.refusals_left), 0
        if self._opened_early:
            self._early_refusals = 0
        expected_s, self._expected_end_s = self._expected_end_s, None
        self._tried += expected_s is not None
        self._ended_early = expected_s is not None and granted_at_s < expected_s
        if self._ended_early:
            note_early_end(estimate, granted_at_s, now)
        closure, self._last_unhinted = self._last_unhinted, None
        first_refused_s, self._first_refused_s = self._first_refused_s, None
        restarted = self._backoff.probe_accepted()
        if closure is None or first_refused_s is None:
            self._is_unfounded = False
            return
        if restarted is not None:
            estimate.period_restarted(restarted)
        else:
            end = PeriodEnd(first_refused_s, closure.granted_at_s, granted_at_s)
            tolerance_s = estimate.refusal_delay_s / 2
            fit = estimate.fit.note(end, estimate.window, tolerance_s, closure.granted_at_s)
            if fit is None and self._is_unfounded:
                fit = estimate.fit.fastest(estimate.window)
            if estimate.learn_fit(fit, closure, now):
                self._is_unfounded = False
                return
        if restarted is not None or granted_at_s - first_refused_s > CHEAP_S:
            estimate.window_probes.delay(now + FIRST_PROBE_AFTER * estimate.window.period_s)
