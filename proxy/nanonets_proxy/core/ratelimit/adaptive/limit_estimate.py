"""The estimate of one scope's limit, and what each closure teaches about it.

A single refusal does not tell which limit was exceeded. So the estimate keeps three hypotheses side by side:

- *window*: at most `count` requests within `period_s`, of which `proven` are proven;
- *concurrency limit*: the most requests in flight;
- *exact hints*: whether hints name the true end of a period, or always the same length (`hint_history.py`).

The *reserve* is for quotas that another client also draws on: the part of the count that was proven before and is
refused now.

| refused request | when | conclusion |
|---|---|---|
| the first of all | nothing is known | count: the accepted requests; period: from the first one to the hint's end |
| a limit probe, or any while a raise is unproven | | undo the raise; the next probe comes later and asks for less |
| any, with as many in flight as allowed | not at a known period end | that number is the concurrency limit |
| the recovery probe | twice in a row | the period lasts up to the end of the hint |
| any other | just after a period | the period is that little longer |
| | the period admitted some requests | that number is the count; the missing part becomes the *reserve* |
| | the period admitted none | the period is longer; below a count of 5, learn everything again |
"""

import math
from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.belief import Belief
from nanonets_proxy.core.ratelimit.adaptive.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind
from nanonets_proxy.core.ratelimit.adaptive.hint_history import HintHistory
from nanonets_proxy.core.ratelimit.adaptive.probe_schedule import SMALL_COUNT, ProbeSchedule
from nanonets_proxy.core.ratelimit.adaptive.sliding_window import SlidingWindow

_SAME_PERIOD = 1.1  # up to this many periods, a refusal means a longer period, not a smaller count
_MAX_FIRST_PERIOD = 10.0  # times the first hint, which covers an unknown part of the period
_GUARD = 0.02  # of a period, at most: travel times to the upstream differ
_RESERVE_KEPT = 0.75  # of the reserve, per period without a refusal
_STARTS_TO_CONFIRM = 4  # a window aligned to the upstream's clock may forgive a period that is a little too short
_LATE = 0.9  # of a period: a later probe, if refused for a constant time, would cost all of the next period


@dataclass(frozen=True, slots=True)
class _ProvenWindow:
    """The window that held before a raise."""

    count: float
    period_s: float
    proven: float


class LimitEstimate:
    """The estimate of one scope's limit. Accepted probes raise it, and closures correct it."""

    __slots__ = (
        "_before_raise",
        "_confirmed_at_s",
        "_min_period_s",
        "_period_start",
        "_raised_at_s",
        "concurrency_limit",
        "concurrency_probes",
        "hints",
        "proven",
        "refusal_delay_s",
        "reserve",
        "starts_to_confirm",
        "window",
        "window_probes",
    )

    def __init__(self) -> None:
        self.window = SlidingWindow()
        self.proven = 0.0
        self.concurrency_limit = math.inf
        self.reserve = 0.0
        """The part of the count that is granted one by one, because another client seems to draw on the quota."""
        self.window_probes = ProbeSchedule(self.window)
        self.concurrency_probes = ProbeSchedule(self.window)
        self.refusal_delay_s = 0.0
        """The usual time from a grant to its 429."""
        self.starts_to_confirm = 0
        """How many of the next periods timed by our own clock, not by a hint, begin with one request."""
        self.hints = HintHistory()
        self._period_start: float = 0  # units granted before the latest closure or confirmed period start
        self._raised_at_s = -math.inf
        self._confirmed_at_s = -math.inf
        self._before_raise: _ProvenWindow | None = None
        self._min_period_s = 0.0  # a shorter period was refused

    @property
    def known(self) -> bool:
        return self.window.count < math.inf

    @property
    def belief(self) -> Belief:
        window = self.window
        return Belief(window.count, window.period_s, self.concurrency_limit, self.proven, self.reserve)

    def restore(self, belief: Belief) -> None:
        """Returns to an earlier belief."""
        self.set_window(belief.count, belief.period_s)
        self.concurrency_limit = belief.concurrency_limit
        self.proven, self.reserve = belief.proven, belief.reserve
        self._before_raise = None

    def set_window(self, count: float, period_s: float) -> None:
        """Sets the window. A new period must confirm its starts again."""
        if period_s != self.window.period_s:
            self.starts_to_confirm = _STARTS_TO_CONFIRM
        self.window.set(count, period_s, min(self.refusal_delay_s / 2, _GUARD * period_s))

    def set_known(self, count: float, period_s: float, proven: float) -> None:
        """Sets a window known from the settings or the state file."""
        self.set_window(count, period_s)
        self.proven = proven
        self.starts_to_confirm = 0

    @property
    def at_period_start(self) -> bool:
        """Whether the next request begins a period. If it comes too soon, all that follow would be refused."""
        return self.window.granted_units - self._period_start >= self.window.count

    def period_start_accepted(self) -> None:
        """Notes that the first request of a period was accepted."""
        self.starts_to_confirm -= 1
        self._period_start = self.window.granted_units - 1

    # --- limit probes ---------------------------------------------------------------------------

    @property
    def prefers_count_probe(self) -> bool:
        """Whether the next limit probe asks for a larger count; otherwise it asks for a shorter period."""
        if self.window.count < SMALL_COUNT:
            return False
        if self.hints.are_exact:
            return True
        # With inexact hints, one probe in 16 searches for a shorter period. Without hints, three in four do.
        refusals = self.window_probes.refusals
        return refusals % 16 != 1 if self.hints.last_was_given else refusals % 4 == 3

    def count_probe_ready(self, now: float) -> bool:
        """Returns whether a count probe can go now, in the same period as all requests that count.

        If that has been impossible for a period since the probe was due, the probe can go in any case.
        """
        window, probes = self.window, self.window_probes
        if now <= window.oldest_s + _LATE * window.period_s:
            return True
        return now >= max(probes.due_at_s, self._raised_at_s) + window.period_s and probes.enough_grants

    @property
    def period_probe_at_s(self) -> float:
        """When a shorter period may be probed; the last raise must have held for a period."""
        if not self.window_probes.enough_grants:
            return math.inf
        period_s = self.window.period_s
        shorter_s = self.window_probes.shorter_period_s(period_s)
        return max(self.window.oldest_s + shorter_s, self._raised_at_s + period_s)

    @property
    def estimated_end_s(self) -> float:
        """When the period ends, by the proven window; -inf if nothing is proven."""
        before = self._before_raise
        if before is not None:
            newest_s = self.window.nth_newest_s(int(before.count))
            return -math.inf if newest_s is None else newest_s + before.period_s
        return self.window.frees_at_s if self.proven and self.window.frees_at_s < math.inf else -math.inf

    def raise_count(self, now: float, units: float = 1) -> None:
        """Notes an accepted count probe, which asked for this many units more than the count."""
        self._raise(self.window.count + units, self.window.period_s, now)

    def shorten_period(self, now: float) -> None:
        """Notes an accepted period probe."""
        self.hints.are_exact = False
        self.proven = 0.0
        self._raise(self.window.count, self.window_probes.shorter_period_s(self.window.period_s), now)

    def raise_concurrency(self) -> None:
        """Notes an accepted concurrency probe."""
        self.concurrency_limit += 1

    def _raise(self, count: float, period_s: float, now: float) -> None:
        last_held = now - self._raised_at_s >= self.window.period_s and self.window_probes.enough_grants
        if self._before_raise is None or last_held:
            self._before_raise = _ProvenWindow(self.window.count, self.window.period_s, self.proven)
        self._raised_at_s = now
        self.window_probes.raised()
        self.set_window(count, period_s)

    def confirm_if_used_up(self, now: float) -> None:
        """Takes the window as proven once it was used up for a whole period without a refusal."""
        window, probes = self.window, self.window_probes
        if window.used(now) < window.count or not probes.enough_grants:
            return
        if now - max(self._raised_at_s, self._confirmed_at_s) < window.period_s:
            return
        if self._before_raise is not None:
            self._before_raise = None
            probes.raise_held(now, window.period_s)
        self.reserve = math.floor(_RESERVE_KEPT * self.reserve)
        self.proven = window.count - self.reserve
        self._confirmed_at_s = now  # so that this happens once a period

    # --- closures -------------------------------------------------------------------------------

    def learn_from(self, closure: Closure, now: float) -> None:
        """Corrects the estimate after a closure. Each request sent before it must have settled or timed out."""
        window = self.window
        self._period_start = window.granted_units
        ends_at_s = closure.granted_at_s + closure.closed_s
        at_period_end = self.hints.note(closure, ends_at_s, window)
        if self._correct_concurrency(closure, at_period_end):
            self.concurrency_probes.refused(now, max(closure.closed_s, window.period_s))
            return
        if not self.known:
            self._learn_window(closure, ends_at_s, now)
            return
        nth_s = window.nth_newest_s(int(window.count))
        if nth_s is None:
            return
        admitted = window.granted_since(ends_at_s - window.period_s)
        needed_s = ends_at_s - nth_s  # a period of this length would explain the refusal
        if closure.kind in LIMIT_PROBES or self._before_raise is not None:
            self._raise_refused(closure, admitted, needed_s, now)
        elif closure.kind is GrantKind.RECOVERY_PROBE:
            if not self.proven and needed_s > window.period_s:
                self.set_window(window.count, needed_s)
            self.proven = 0.0
        elif window.period_s < needed_s <= _SAME_PERIOD * window.period_s:
            self.set_window(window.count, needed_s)
            # Hints in whole seconds are rounded up.
            self._min_period_s = needed_s if closure.closed_s % 1 else needed_s - 1
        elif admitted:
            self._lower_count(admitted, now)
        elif window.count < SMALL_COUNT:
            self._learn_window(closure, ends_at_s, now)
        else:
            self.set_window(window.count, needed_s)
        if not at_period_end:
            self._learn_concurrency(closure, admitted)

    def _correct_concurrency(self, closure: Closure, at_period_end: bool) -> bool:
        """Lowers the concurrency limit if a refusal reached it. Returns whether a refusal reached or probed it."""
        usual = closure.kind in (GrantKind.PROVEN, GrantKind.UNPROVEN)
        at_limit = usual and not at_period_end and closure.in_flight >= max(2, self.concurrency_limit - 1)
        if closure.kind is not GrantKind.CONCURRENCY_PROBE and not (at_limit and self.concurrency_limit < math.inf):
            return False
        if at_limit:
            self.concurrency_limit = min(self.concurrency_limit, max(1, closure.in_flight))
        return True

    def _lower_count(self, admitted: float, now: float) -> None:
        """Takes the admitted requests as the count. The missing part of the proven count becomes the reserve."""
        if admitted < self.proven:
            self.reserve = min(admitted // 2, max(self.reserve, self.proven - admitted))
        self.set_window(min(admitted, self.window.count), self.window.period_s)
        self.proven = min(self.proven, admitted)
        self.window_probes.limit_changed(now, self.window.period_s)
        self._min_period_s = 0.0

    def _learn_window(self, closure: Closure, ends_at_s: float, now: float) -> None:
        """Learns count and period from the grants alone, as after the first refusal."""
        window = self.window
        first_known_s = window.first_known_s
        if first_known_s is None:
            return
        # The first request may belong to an earlier period of the upstream.
        period_s = min(ends_at_s - first_known_s, _MAX_FIRST_PERIOD * closure.closed_s)
        if self.hints.longest_s > 1.5 * closure.closed_s:
            period_s = min(period_s, self.hints.longest_s)
        count = max(1, window.granted_since(ends_at_s - period_s))
        self.set_window(count, period_s)
        self.window_probes = ProbeSchedule(window, now)
        self._min_period_s = 0.0
        self._learn_concurrency(closure, count)

    def _learn_concurrency(self, closure: Closure, admitted: float) -> None:
        """Suspects a concurrency limit if all admitted requests were still in flight."""
        in_flight, limit = closure.in_flight, self.concurrency_limit
        if in_flight >= 2 and in_flight >= (admitted if limit == math.inf else limit / 4):
            self.concurrency_limit = min(limit, in_flight)

    def _raise_refused(self, closure: Closure, admitted: float, needed_s: float, now: float) -> None:
        """Undoes an unproven raise, and schedules the next probe."""
        window, before, probes = self.window, self._before_raise, self.window_probes
        # Several raises of the count were accepted before this refusal.
        quota_varies = (
            before is not None
            and closure.kind is not GrantKind.COUNT_PROBE
            and window.count >= before.count + 2
            and window.period_s == before.period_s
        )
        if closure.kind is GrantKind.PERIOD_PROBE:
            probes.period_refused(probes.shorter_period_s(window.period_s))
        elif before is not None and before.period_s > window.period_s:
            probes.period_refused(window.period_s)
        if before is not None and closure.kind is not GrantKind.COUNT_PROBE:
            count = before.count
            if before.period_s == window.period_s:
                count = max(count, min(admitted, window.count))
            self.set_window(count, before.period_s)
            self.proven = min(before.proven, count)
            self._before_raise = None
        first = not probes.refusals
        if quota_varies:
            probes.quota_varied(now, window.period_s)
        else:
            probes.refused(now, window.period_s)
        if not closure.hinted or closure.kind not in LIMIT_PROBES:
            return
        if abs(needed_s - window.period_s) <= 0.1 * window.period_s and closure.closed_s < 0.9 * window.period_s:
            self.hints.are_exact = True
        # The first count probe shows the whole length of a period. The first refusal showed only the rest of one.
        longer = first and needed_s > _SAME_PERIOD * window.period_s
        if closure.kind is GrantKind.COUNT_PROBE and (needed_s < window.period_s or longer):
            self.set_window(window.count, max(needed_s, self._min_period_s))
