"""What is known of one scope's limit, and what each closure teaches.

Three hypotheses stand side by side, as a refusal alone does not tell what was too much:

- *window*: `count` requests within `period_s`, of which `sure` are proven; a pace is a count of 1;
- *cap*: so many in flight at once;
- *rests*: whether the hints are the true rest of a period, or a constant.

The reserve is for quotas that someone else draws on too: what was refused though it had been proven before.

| a refusal of | when | means |
|---|---|---|
| the first | nothing is known | what was admitted, from the first of it to the end of the hint |
| an attempt, or one while a raise is pending | | the raise goes back; the next comes later and asks for less |
| a request in flight up to the cap | not at a known end of a period | the cap is what was admitted and in flight |
| the probe | twice in a row | the period is longer: up to the end of the hint |
| any other | just after a period | the period is that little longer |
| | some were admitted in the period | the count is what was; a *reserve* of it goes one by one |
| | none were | the period is longer, or, for a count below 5, all is learned anew |
"""

import math
from collections import deque
from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind
from nanonets_proxy.core.ratelimit.adaptive.probe_schedule import ProbeSchedule
from nanonets_proxy.core.ratelimit.adaptive.sliding_window import SlidingWindow

FEW = 5
"""Counts below it grow by a shorter period, since one more would be a large step."""

_SAME_PERIOD = 1.1  # a refusal this little past the period says that the period is longer, not the count smaller
_LONGEST_FIRST = 10.0  # times the first hint, which is the rest of a period of unknown length
_GUARD = 0.02  # of a period, at most, against requests that take different times to arrive
_RESERVE_KEPT = 0.75  # a period, while nothing is refused
_HINTS_KEPT = 4
_STARTS_TO_CONFIRM = 4  # windows on the clock forgive a period that is a little short a few times
_LATE = 0.9  # of a period: with a constant hint, or a penalty, a later attempt would cost all of the next


@dataclass(frozen=True, slots=True)
class _ProvenWindow:
    """What held before a raise."""

    count: float
    period_s: float
    proven: float


class LimitEstimate:
    """Changed by what passes (`raise_count`, `raise_pace`, `widen`, `bear`) and by closures (`learn`)."""

    __slots__ = (
        "_before_raise",
        "_confirmed_at_s",
        "_hint_end_s",
        "_hinted",
        "_hints_s",
        "_min_period_s",
        "_period_start",
        "_raised_at_s",
        "concurrency_limit",
        "concurrency_probes",
        "hints_are_exact",
        "proven",
        "refusal_delay_s",
        "reserve",
        "starts_to_confirm",
        "window",
        "window_probes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.window = SlidingWindow()
        self.proven = 0.0
        self.concurrency_limit = math.inf
        self.reserve = 0.0
        """Of the count, what goes one by one: so much of the quota was taken by someone else."""
        self.window_probes = ProbeSchedule(self.window)
        self.concurrency_probes = ProbeSchedule(self.window)
        self.hints_are_exact = False
        self.refusal_delay_s = 0.0
        """The usual time from a grant to its 429."""
        self.starts_to_confirm = 0
        """So many more periods that begin by our clock, not by a hint, begin with one request."""
        self._period_start = 0  # the grants before the latest closure, or before a period that began so
        self._hinted = False
        self._hints_s: deque[float] = deque(maxlen=_HINTS_KEPT)
        self._hint_end_s = -math.inf  # where the last hint ended
        self._raised_at_s = -math.inf
        self._confirmed_at_s = -math.inf
        self._before_raise: _ProvenWindow | None = None
        self._min_period_s = 0.0  # a shorter period was refused

    @property
    def known(self) -> bool:
        return self.window.count < math.inf

    def set_window(self, count: float, period_s: float) -> None:
        if period_s != self.window.period_s:
            self.starts_to_confirm = _STARTS_TO_CONFIRM
        self.window.set(count, period_s, min(self.refusal_delay_s / 2, _GUARD * period_s))

    def set_known(self, count: float, period_s: float, proven: float) -> None:
        """What is known from elsewhere."""
        self.set_window(count, period_s)
        self.proven = proven
        self.starts_to_confirm = 0

    @property
    def at_period_start(self) -> bool:
        """Whether the next one begins a period. One that is still to be felt may be too soon: then all after the
        first would be refused too."""
        return self.window.granted - self._period_start >= self.window.count

    def period_start_accepted(self) -> None:
        self.starts_to_confirm -= 1
        self._period_start = self.window.granted - 1

    # --- asking for more ----------------------------------------------------------------------------

    @property
    def prefers_count_probe(self) -> bool:
        """Or else by a shorter period."""
        if self.window.count < FEW:
            return False
        if self.hints_are_exact:
            return True
        # While the end of the period is not known, it is the period that is to be found out.
        refusals = self.window_probes.refusals
        return refusals % 16 != 1 if self._hinted else refusals % 4 == 3

    def count_probe_ready(self, now: float) -> bool:
        """Whether one more falls into the same period as all that counts; at last, if no such moment comes, any."""
        window = self.window
        if now <= window.oldest_s + _LATE * window.period_s:
            return True
        return (
            now >= max(self.window_probes.due_at_s, self._raised_at_s) + window.period_s
            and self.window_probes.enough_grants
        )

    @property
    def period_probe_at_s(self) -> float:
        """When a shorter period may be tried; the last raise must have been borne for a period."""
        if not self.window_probes.enough_grants:
            return math.inf
        period_s = self.window.period_s
        return max(
            self.window.oldest_s + self.window_probes.shorter_period_s(period_s), self._raised_at_s + period_s
        )

    @property
    def estimated_end_s(self) -> float:
        """When the period ends by what was proven; -inf if nothing was."""
        before = self._before_raise
        if before is not None:
            newest_s = self.window.nth_newest_s(int(before.count))
            return -math.inf if newest_s is None else newest_s + before.period_s
        return self.window.frees_at_s if self.proven and self.window.frees_at_s < math.inf else -math.inf

    def raise_count(self, now: float) -> None:
        """An extra has passed."""
        self._raise(self.window.count + 1, self.window.period_s, now)

    def shorten_period(self, now: float) -> None:
        """One before the end of the period has passed."""
        self.hints_are_exact = False
        self.proven = 0.0
        self._raise(self.window.count, self.window_probes.shorter_period_s(self.window.period_s), now)

    def raise_concurrency(self) -> None:
        """One more in flight has passed."""
        self.concurrency_limit += 1

    def _raise(self, count: float, period_s: float, now: float) -> None:
        enough_grants = now - self._raised_at_s >= self.window.period_s and self.window_probes.enough_grants
        if self._before_raise is None or enough_grants:
            self._before_raise = _ProvenWindow(self.window.count, self.window.period_s, self.proven)
        self._raised_at_s = now
        self.window_probes.raised()
        self.set_window(count, period_s)

    def confirm_window(self, now: float) -> None:
        """The window is used up and nothing was refused: if that is so for a whole period, it is proven."""
        period_s = self.window.period_s
        if now - max(self._raised_at_s, self._confirmed_at_s) < period_s or not self.window_probes.enough_grants:
            return
        if self._before_raise is not None:
            self._before_raise = None
            self.window_probes.raise_held(now, period_s)
        self.reserve = math.floor(_RESERVE_KEPT * self.reserve)
        self.proven = self.window.count - self.reserve
        self._confirmed_at_s = now  # hence once a period

    # --- what a closure means -----------------------------------------------------------------------

    def learn_from(self, closure: Closure, now: float) -> None:
        """Once all that was sent before the closure is known, or silent."""
        window = self.window
        self._period_start = window.granted
        ends_at_s = closure.granted_at_s + closure.closed_s
        explained = self._note_hint(closure, ends_at_s)
        ours = closure.kind in (GrantKind.PROVEN, GrantKind.UNPROVEN)
        at_cap = ours and not explained and closure.in_flight >= max(2, self.concurrency_limit - 1)
        if closure.kind is GrantKind.CONCURRENCY_PROBE or (at_cap and self.concurrency_limit < math.inf):
            self.concurrency_limit = (
                min(self.concurrency_limit, max(1, closure.in_flight)) if at_cap else self.concurrency_limit
            )
            self.concurrency_probes.refused(now, max(closure.closed_s, window.period_s))
            return
        if not self.known:
            self._learn_anew(closure, ends_at_s, now)
            return
        nth_s = window.nth_newest_s(int(window.count))
        if nth_s is None:
            return
        counted = window.granted_since(ends_at_s - window.period_s)
        needed_s = ends_at_s - nth_s
        if closure.kind in LIMIT_PROBES or self._before_raise is not None:
            self._raise_failed(closure, counted, needed_s, now)
        elif closure.kind is GrantKind.RECOVERY_PROBE:
            if not self.proven and needed_s > window.period_s:
                self.set_window(window.count, needed_s)
            self.proven = 0.0
        elif window.period_s < needed_s <= _SAME_PERIOD * window.period_s:
            self.set_window(window.count, needed_s)
            # Hints in whole seconds are rounded up.
            self._min_period_s = needed_s if closure.closed_s % 1 else needed_s - 1
        elif counted:
            if counted < self.proven:
                self.reserve = min(counted // 2, max(self.reserve, self.proven - counted))
            self.set_window(min(counted, window.count), window.period_s)
            self.proven = min(self.proven, counted)
            self.window_probes.limit_changed(now, window.period_s)
            self._min_period_s = 0.0
        elif window.count < FEW:
            self._learn_anew(closure, ends_at_s, now)
        else:
            self.set_window(window.count, needed_s)
        if not explained:
            self._learn_cap(closure, counted)

    def _note_hint(self, closure: Closure, ends_at_s: float) -> bool:
        """Hints are true rests if they differ, and the ends that they name are whole periods apart.

        Gives whether that is known of them, and true of this one.
        """
        self._hinted = closure.hinted
        if not closure.hinted:
            return False
        window = self.window
        explained = False
        if self._hints_s and window.count >= FEW and self.known:
            apart_s = ends_at_s - self._hint_end_s
            periods = round(apart_s / window.period_s)
            differ = abs(closure.closed_s - self._hints_s[-1]) / window.period_s
            off = abs(apart_s / window.period_s - periods)
            # Exact hints, or those in whole seconds.
            if periods >= 1 and ((differ > 0.001 and off <= 0.02) or (differ > 0.1 and off <= 0.1)):
                self.hints_are_exact = True
            explained = self.hints_are_exact and off <= 0.1
        self._hints_s.append(closure.closed_s)
        self._hint_end_s = ends_at_s
        return explained

    def _learn_anew(self, closure: Closure, ends_at_s: float, now: float) -> None:
        window = self.window
        first_known_s = window.first_known_s
        if first_known_s is None:
            return
        # After a long time without refusals the limit has long forgotten the beginning of it.
        period_s = min(ends_at_s - first_known_s, _LONGEST_FIRST * closure.closed_s)
        longest_s = max(self._hints_s, default=0.0)
        if longest_s > 1.5 * closure.closed_s:
            period_s = min(period_s, longest_s)
        count = max(1, window.granted_since(ends_at_s - period_s))
        self.set_window(count, period_s)
        self.window_probes = ProbeSchedule(window, now)
        self._min_period_s = 0.0
        self._learn_cap(closure, count)

    def _learn_cap(self, closure: Closure, counted: int) -> None:
        """All that was let through was still in flight: perhaps it is that which is limited."""
        at_once = closure.in_flight
        if at_once >= 2 and (
            at_once >= counted if self.concurrency_limit == math.inf else at_once >= self.concurrency_limit / 4
        ):
            self.concurrency_limit = min(self.concurrency_limit, at_once)

    def _raise_failed(self, closure: Closure, counted: int, needed_s: float, now: float) -> None:
        window, before, window_probes = self.window, self._before_raise, self.window_probes
        quota_varies = (
            before is not None
            and closure.kind is not GrantKind.COUNT_PROBE
            and window.count >= before.count + 2
            and window.period_s == before.period_s
        )
        if closure.kind is GrantKind.PERIOD_PROBE:
            window_probes.period_refused(window_probes.shorter_period_s(window.period_s))
        elif before is not None and before.period_s > window.period_s:
            window_probes.period_refused(window.period_s)
        if before is not None and closure.kind is not GrantKind.COUNT_PROBE:
            count = before.count
            if before.period_s == window.period_s:
                count = max(count, min(counted, window.count))
            self.set_window(count, before.period_s)
            self.proven = min(before.proven, count)
            self._before_raise = None
        first = not window_probes.refusals
        if quota_varies:
            window_probes.quota_varies(now, window.period_s)
        else:
            window_probes.refused(now, window.period_s)
        if not closure.hinted or closure.kind not in LIMIT_PROBES:
            return
        if abs(needed_s - window.period_s) <= 0.1 * window.period_s and closure.closed_s < 0.9 * window.period_s:
            self.hints_are_exact = True
        # The first extra tells the true end of a period of which only the rest was known.
        longer = first and needed_s > _SAME_PERIOD * window.period_s
        if closure.kind is GrantKind.COUNT_PROBE and (needed_s < window.period_s or longer):
            self.set_window(window.count, max(needed_s, self._min_period_s))
