"""The estimate of one scope's limit. Accepted probes raise it, and closures correct it (`lessons.py`).

A single refusal does not tell which limit was exceeded. So the estimate keeps three hypotheses side by side:

- *window*: at most `count` requests within `period_s`, of which `proven` are proven;
- *concurrency limit*: the most requests in flight (`concurrency_estimate.py`);
- *exact hints*: whether hints name the true end of a period, or always the same length (`hint_history.py`).

The *reserve* is for quotas that another client also draws on: the part of the count that was proven before and is
refused now.
"""

import math
from collections import deque

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief, ProvenWindow
from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.concurrency_estimate import ConcurrencyEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.hint_history import HintHistory
from nanonets_proxy.core.ratelimit.adaptive.estimate.interval_fit import IntervalFit
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_fit import PeriodFit
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import LONG_S, SMALL_COUNT, ProbeSchedule
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit

GUARD = 0.02
"""At most this share is added to a period, since travel times to the upstream differ."""

_REMEMBERED_PERIODS = 8  # where requests have several pages, a few in a row often admit the same number
_RESERVE_KEPT = 0.75  # of the reserve, per period without a refusal
_STARTS_TO_CONFIRM = 2  # a window aligned to the upstream's clock may forgive a period that is a little too short
CHEAP_S = 2.0  # a refused limit probe may cost a closure this long at any time
FIRST_PROBE_AFTER = 4  # periods, where a refused probe may cost a whole period
_SHORT_S = 5.0  # without hints, a token bucket is learned as a window of up to a few seconds
_LATE = 0.9  # of a period: with hints of constant length, the refusal of a later probe would cost the next period


class LimitEstimate:
    """The estimate of one scope's limit. Accepted probes raise it, and closures correct it."""

    __slots__ = (
        *("_admitted", "_confirmed_at_s", "_least_period_s", "_period_start", "_probed_period_s", "_raised_at_s"),
        *("before_raise", "concurrency", "fit", "hints", "interval_fit", "min_period_s"),
        *("proven", "quota_varies", "refusal_delay_s", "refused_s", "reserve", "starts_to_confirm"),
        *("window", "window_probes"),
    )

    def __init__(self) -> None:
        self.window = SlidingWindow()
        self.proven = 0.0
        self.concurrency = ConcurrencyEstimate(self.window)
        self.reserve = 0.0
        """The part of the count that is granted one by one, because another client seems to draw on the quota."""
        self.window_probes = ProbeSchedule(self.window)
        self.refusal_delay_s = 0.0
        """The usual time from a grant to its 429."""
        self.refused_s = -math.inf
        """When the latest request but a recovery probe was refused without a hint: its period had begun."""
        self.starts_to_confirm = 0
        """How many of the next periods timed by our own clock, not by a hint, begin with one request."""
        self.hints = HintHistory()
        self._admitted: deque[float] = deque(maxlen=_REMEMBERED_PERIODS)  # by the latest refusals
        self.quota_varies = False
        """Whether some of these periods admitted more than others, as where requests have several pages."""
        self.fit = PeriodFit()
        self.interval_fit = IntervalFit()
        self._least_period_s = 0.0
        self._probed_period_s = 0.0
        self._period_start: float = 0  # units granted before the latest closure or confirmed period start
        self._raised_at_s = -math.inf
        self._confirmed_at_s = -math.inf
        self.before_raise: ProvenWindow | None = None
        """The window that held before a raise that is not proven yet."""
        self.min_period_s = 0.0  # shorter periods were refused

    @property
    def is_static(self) -> bool:
        """Whether the settings or the upstream state the limit, so that it is no estimate."""
        return self._least_period_s > 0

    @property
    def known(self) -> bool:
        return self.window.count < math.inf

    @property
    def belief(self) -> Belief:
        window = self.window
        limit = self.concurrency.limit
        return Belief(window.count, window.period_s, limit, self.proven, self.reserve, tuple(self._admitted))

    def restore(self, belief: Belief) -> None:
        """Returns to an earlier belief: the refusals since then did not concern the limit."""
        self.fit.stop()
        self.interval_fit.stop()
        self.set_window(belief.count, belief.period_s)
        self.concurrency.limit = belief.concurrency_limit
        self.proven, self.reserve = belief.proven, belief.reserve
        self._admitted.clear()
        self.note_admitted(*belief.admitted)
        self.before_raise = None

    def set_window(self, count: float, period_s: float) -> None:
        """Sets the window. A new period must confirm its starts again."""
        period_s = max(period_s, self._least_period_s)
        if period_s != self.window.period_s:
            self.starts_to_confirm = _STARTS_TO_CONFIRM
        self.window.set(count, period_s, min(self.refusal_delay_s / 2, GUARD * period_s))

    def set_static(self, limit: StaticLimit) -> None:
        """Sets a window known from the settings or from the upstream. The period never gets shorter."""
        self._least_period_s = limit.period_s
        self.before_raise = None
        self.set_known(limit.count, limit.period_s, limit.count)

    def forget_static(self) -> None:
        """Notes that the settings have no limit any more. The window stays, as an estimate."""
        self._least_period_s = 0.0

    def set_known(self, count: float, period_s: float, proven: float) -> None:
        """Sets a window known from the settings, the state file or the upstream."""
        self.set_window(count, period_s)
        self.proven = proven
        self.starts_to_confirm = 0

    @property
    def at_period_start(self) -> bool:
        """Whether the next request begins a period. If it comes too soon, all later ones would be refused."""
        return self.window.granted_units - self._period_start >= self.window.count

    def period_start_accepted(self) -> None:
        """Notes that the first request of a period was accepted."""
        self.starts_to_confirm -= 1
        self._period_start = self.window.granted_units - 1

    # --- limit probes ---------------------------------------------------------------------------

    @property
    def prefers_count_probe(self) -> bool:
        """Whether the next limit probe asks for a larger count; otherwise it asks for a shorter period."""
        if self.quota_varies:
            return True
        if self.window.count < SMALL_COUNT:
            return False
        if self.hints.are_exact:
            return True
        # With inexact hints, one probe in 16 searches for a shorter period: it goes late, so its hint may reach far
        # into the next period. Without hints, three in four do, unless one was too late to gain much.
        refusals = self.window_probes.refusals
        if not refusals and self.concurrency.limit < math.inf:
            return True
        if self.hints.last_was_given:
            return refusals % 16 != 4
        return refusals % 4 == 3 or self.window_probes.gained_little

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
        probe_at_s = self.window.oldest_s + self.window_probes.shorter_period_s(period_s)
        return probe_at_s if self.window_probes.searching else max(probe_at_s, self._raised_at_s + period_s)

    def period_probe_granted(self, now: float) -> None:
        """Notes the period that a period probe tests. A late probe tests a longer period than planned."""
        self._probed_period_s = now - self.window.oldest_s

    def raise_count(self, now: float, units: float = 1, at_most: float = math.inf) -> None:
        """Notes an accepted count probe, which asked for this many units more than the count.

        While no probe was refused, the step is large.
        """
        count = self.window.count
        step = units if self.window_probes.refusals else max(units, count // 2)
        self._raise(min(count + step, at_most), self.window.period_s, now)

    def shorten_period(self, now: float) -> None:
        """Notes an accepted period probe."""
        self.hints.are_exact = False
        self.proven = 0.0
        period_s = self.window_probes.shown_period_s(self.window.period_s, self._probed_period_s)
        if self.window_probes.gained_little and self.prefers_count_probe:
            return
        if self.window_probes.searching:
            self.set_window(self.window.count, period_s)  # the accepted probe proves the shorter period
        else:
            self._raise(self.window.count, period_s, now)

    def try_period(self, period_s: float, now: float) -> None:
        """Uses a shorter period that a refused count probe suggests. A refusal undoes this if a part was proven."""
        if self.proven:
            self._raise(self.window.count, period_s, now)
        self.set_window(self.window.count, period_s)
        self.proven = 0.0

    def _raise(self, count: float, period_s: float, now: float) -> None:
        last_held = now - self._raised_at_s >= self.window.period_s and self.window_probes.enough_grants
        if self.before_raise is None or last_held:
            self.before_raise = ProvenWindow(self.window.count, self.window.period_s, self.proven)
        self._raised_at_s = now
        self.window_probes.raised()
        self.set_window(count, period_s)

    def used_up(self, now: float) -> None:
        """Notes that the window was used up. Takes it as proven if a whole period passed without a refusal."""
        window, probes = self.window, self.window_probes
        if not probes.enough_grants:
            return
        if now - max(self._raised_at_s, self._confirmed_at_s) < window.period_s:
            return
        if self.before_raise is not None:
            self.before_raise = None
            probes.raise_held(now, window.period_s)
        self.reserve = math.floor(_RESERVE_KEPT * self.reserve)
        self.proven = window.count - self.reserve
        self._confirmed_at_s = now  # so that this happens once a period

    # --- corrections ----------------------------------------------------------------------------

    def learn_window(self, count: float, period_s: float, closure: Closure, now: float) -> None:
        """Sets a window that the refusals so far suggest, and plans the probes that test it. No part is proven."""
        self._admitted.clear()
        if count < 2 * SMALL_COUNT:  # a burst may admit more than later periods do; few probes raise a small count
            self._admitted.append(count)
        self.quota_varies = False
        self.set_window(count, period_s)
        first_s = now if closure.closed_s <= CHEAP_S else now + FIRST_PROBE_AFTER * period_s
        may_search = closure.refused >= SMALL_COUNT or period_s <= LONG_S
        self.window_probes = ProbeSchedule(self.window, first_s, searching=count < SMALL_COUNT and may_search)
        self.proven = self.reserve = self.min_period_s = 0.0

    def learn_fit(self, fit: tuple[float, float] | None, closure: Closure, now: float) -> bool:
        """Sets the window that explains all refusals so far. Returns whether there is a new one.

        A refused probe tests the window that is known, and a static limit is no estimate.
        """
        is_probe = closure.kind in LIMIT_PROBES or self.before_raise is not None
        if fit is None or is_probe or self.is_static:
            return False
        self.learn_window(*fit, closure, now)
        return True

    def period_restarted(self, belief: Belief) -> None:
        """Notes that a pause of the period of an earlier belief sufficed: refusals had restarted the period."""
        count = min(belief.count, self.window.count)
        self.set_window(count, belief.period_s)
        self.proven = min(belief.proven, count)

    def note_admitted(self, *admitted: float) -> None:
        """Notes what periods admitted until they refused a request. The quota varies if they differ."""
        self._admitted.extend(admitted)
        differ_by = max(self._admitted, default=0.0) - min(self._admitted, default=0.0)
        # A large request leaves part of a period. In a short one, a token that came back looks like one more.
        self.quota_varies = differ_by >= max(self.window.refused_cost, 2 if self.window.period_s <= _SHORT_S else 1)

    def lower_count(self, admitted: float, now: float) -> None:
        """Notes a period that admitted fewer requests than the count.

        The count becomes the most, and the proven part the least, that one of the latest such periods admitted. The
        missing part of the proven count becomes the reserve.
        """
        if admitted < self.proven:
            self.reserve = min(admitted // 2, max(self.reserve, self.proven - admitted))
        self.note_admitted(admitted)
        least, most = min(self._admitted), max(self._admitted)
        self.set_window(min(most, self.window.count), self.window.period_s)
        self.proven = min(least, self.window.count)
        self.window_probes.limit_changed(now if self.quota_varies else now + self.window.period_s)
        self.min_period_s = 0.0

    def undo_raise(self, admitted: float) -> None:
        """Returns to the window before the raise; to the admitted requests, if these were more."""
        if (before := self.before_raise) is None:
            return
        count, window = before.count, self.window
        if before.period_s == window.period_s:
            count = max(count, min(admitted, window.count))
        self.set_window(count, before.period_s)
        self.proven = before.proven
        self.before_raise = None

    def period_ended(self, by_s: float, now: float) -> None:
        """Notes that a period ended before the estimate says so: a probe of this instant was accepted."""
        self.window.retire_before(by_s)
        self._confirmed_at_s = now

    def closed(self) -> None:
        """Notes that the scope was closed: its next grant begins a period."""
        self._period_start = self.window.granted_units
