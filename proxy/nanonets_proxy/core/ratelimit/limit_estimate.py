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

from nanonets_proxy.core.ratelimit.closure import ATTEMPTS, Closure, GrantKind
from nanonets_proxy.core.ratelimit.probe_schedule import ProbeSchedule
from nanonets_proxy.core.ratelimit.sliding_window import Window

FEW = 5
"""Counts below it grow by a shorter period, since one more would be a large step."""

_SAME_PERIOD = 1.1  # a refusal this little past the period says that the period is longer, not the count smaller
_LONGEST_FIRST = 10.0  # times the first hint, which is the rest of a period of unknown length
_GUARD = 0.02  # of a period, at most, against requests that take different times to arrive
_RESERVE_KEPT = 0.75  # a period, while nothing is refused
_HINTS_KEPT = 4
_STARTS_TO_FEEL = 4  # windows on the clock forgive a period that is a little short a few times
_LATE = 0.9  # of a period: with a constant hint, or a penalty, a later attempt would cost all of the next


@dataclass(frozen=True, slots=True)
class _Proven:
    """What held before a raise."""

    count: float
    period_s: float
    sure: float


class LimitEstimate:
    """Changed by what passes (`raise_count`, `raise_pace`, `widen`, `bear`) and by closures (`learn`)."""

    __slots__ = (
        "_before_raise", "_ended_at_s", "_full_at_s", "_hinted", "_hints_s", "_least_s", "_raised_at_s",
        "_start", "cap", "growth", "hints_are_rests", "refusal_s", "reserve", "starts_to_feel", "sure",
        "wider", "window",
    )  # fmt: skip

    def __init__(self) -> None:
        self.window = Window()
        self.sure = 0.0
        self.cap = math.inf
        self.reserve = 0.0
        """Of the count, what goes one by one: so much of the quota was taken by someone else."""
        self.growth = ProbeSchedule(self.window)
        self.wider = ProbeSchedule(self.window)
        self.hints_are_rests = False
        self.refusal_s = 0.0
        """The usual time from a grant to its 429."""
        self.starts_to_feel = 0
        """So many more periods that begin by our clock, not by a hint, begin with one request."""
        self._start = 0  # the grants before the latest closure, or before a period that began so
        self._hinted = False
        self._hints_s: deque[float] = deque(maxlen=_HINTS_KEPT)
        self._ended_at_s = -math.inf  # where the last hint ended
        self._raised_at_s = -math.inf
        self._full_at_s = -math.inf
        self._before_raise: _Proven | None = None
        self._least_s = 0.0  # a shorter period was refused

    @property
    def known(self) -> bool:
        return self.window.count < math.inf

    def set_window(self, count: float, period_s: float) -> None:
        if period_s != self.window.period_s:
            self.starts_to_feel = _STARTS_TO_FEEL
        self.window.set(count, period_s, min(self.refusal_s / 2, _GUARD * period_s))

    def given(self, count: float, period_s: float, sure: float) -> None:
        """What is known from elsewhere."""
        self.set_window(count, period_s)
        self.sure = sure
        self.starts_to_feel = 0

    @property
    def at_start(self) -> bool:
        """Whether the next one begins a period. One that is still to be felt may be too soon: then all after the
        first would be refused too."""
        return self.window.granted - self._start >= self.window.count

    def start_passed(self) -> None:
        self.starts_to_feel -= 1
        self._start = self.window.granted - 1

    # --- asking for more ----------------------------------------------------------------------------

    @property
    def grows_by_count(self) -> bool:
        """Or else by a shorter period."""
        if self.window.count < FEW:
            return False
        if self.hints_are_rests:
            return True
        # While the end of the period is not known, it is the period that is to be found out.
        attempts = self.growth.attempts
        return attempts % 16 != 1 if self._hinted else attempts % 4 == 3

    def extra_would_tell(self, now: float) -> bool:
        """Whether one more falls into the same period as all that counts; at last, if no such moment comes, any."""
        window = self.window
        if now <= window.oldest_s + _LATE * window.period_s:
            return True
        return now >= max(self.growth.due_at_s, self._raised_at_s) + window.period_s and self.growth.borne

    @property
    def early_at_s(self) -> float:
        """When a shorter period may be tried; the last raise must have been borne for a period."""
        if not self.growth.borne:
            return math.inf
        period_s = self.window.period_s
        return max(self.window.oldest_s + self.growth.shorter_s(period_s), self._raised_at_s + period_s)

    @property
    def believed_end_s(self) -> float:
        """When the period ends by what was proven; -inf if nothing was."""
        before = self._before_raise
        if before is not None:
            newest_s = self.window.nth_newest_s(int(before.count))
            return -math.inf if newest_s is None else newest_s + before.period_s
        return self.window.frees_at_s if self.sure and self.window.frees_at_s < math.inf else -math.inf

    def raise_count(self, now: float) -> None:
        """An extra has passed."""
        self._raise(self.window.count + 1, self.window.period_s, now)

    def raise_pace(self, now: float) -> None:
        """One before the end of the period has passed."""
        self.hints_are_rests = False
        self.sure = 0.0
        self._raise(self.window.count, self.growth.shorter_s(self.window.period_s), now)

    def widen(self) -> None:
        """One more in flight has passed."""
        self.cap += 1

    def _raise(self, count: float, period_s: float, now: float) -> None:
        borne = now - self._raised_at_s >= self.window.period_s and self.growth.borne
        if self._before_raise is None or borne:
            self._before_raise = _Proven(self.window.count, self.window.period_s, self.sure)
        self._raised_at_s = now
        self.growth.raised()
        self.set_window(count, period_s)

    def bear(self, now: float) -> None:
        """The window is used up and nothing was refused: if that is so for a whole period, it is proven."""
        period_s = self.window.period_s
        if now - max(self._raised_at_s, self._full_at_s) < period_s or not self.growth.borne:
            return
        if self._before_raise is not None:
            self._before_raise = None
            self.growth.proved(now, period_s)
        self.reserve = math.floor(_RESERVE_KEPT * self.reserve)
        self.sure = self.window.count - self.reserve
        self._full_at_s = now  # hence once a period

    # --- what a closure means -----------------------------------------------------------------------

    def learn(self, refusal: Closure, now: float) -> None:
        """Once all that was sent before the closure is known, or silent."""
        window = self.window
        self._start = window.granted
        ends_at_s = refusal.granted_at_s + refusal.closed_s
        explained = self._note_hint(refusal, ends_at_s)
        ours = refusal.kind in (GrantKind.PLAIN, GrantKind.TRIAL)
        at_cap = ours and not explained and refusal.in_flight >= max(2, self.cap - 1)
        if refusal.kind is GrantKind.WIDER or (at_cap and self.cap < math.inf):
            self.cap = min(self.cap, max(1, refusal.in_flight)) if at_cap else self.cap
            self.wider.failed(now, max(refusal.closed_s, window.period_s))
            return
        if not self.known:
            self._learn_anew(refusal, ends_at_s, now)
            return
        nth_s = window.nth_newest_s(int(window.count))
        if nth_s is None:
            return
        counted = window.granted_since(ends_at_s - window.period_s)
        needed_s = ends_at_s - nth_s
        if refusal.kind in ATTEMPTS or self._before_raise is not None:
            self._raise_failed(refusal, counted, needed_s, now)
        elif refusal.kind is GrantKind.PROBE:
            if not self.sure and needed_s > window.period_s:
                self.set_window(window.count, needed_s)
            self.sure = 0.0
        elif window.period_s < needed_s <= _SAME_PERIOD * window.period_s:
            self.set_window(window.count, needed_s)
            # Hints in whole seconds are rounded up.
            self._least_s = needed_s if refusal.closed_s % 1 else needed_s - 1
        elif counted:
            if counted < self.sure:
                self.reserve = min(counted // 2, max(self.reserve, self.sure - counted))
            self.set_window(min(counted, window.count), window.period_s)
            self.sure = min(self.sure, counted)
            self.growth.soon(now, window.period_s)
            self._least_s = 0.0
        elif window.count < FEW:
            self._learn_anew(refusal, ends_at_s, now)
        else:
            self.set_window(window.count, needed_s)
        if not explained:
            self._learn_cap(refusal, counted)

    def _note_hint(self, refusal: Closure, ends_at_s: float) -> bool:
        """Hints are true rests if they differ, and the ends that they name are whole periods apart.

        Gives whether that is known of them, and true of this one.
        """
        self._hinted = refusal.hinted
        if not refusal.hinted:
            return False
        window = self.window
        explained = False
        if self._hints_s and window.count >= FEW and self.known:
            apart_s = ends_at_s - self._ended_at_s
            periods = round(apart_s / window.period_s)
            differ = abs(refusal.closed_s - self._hints_s[-1]) / window.period_s
            off = abs(apart_s / window.period_s - periods)
            # Exact hints, or those in whole seconds.
            if periods >= 1 and ((differ > 0.001 and off <= 0.02) or (differ > 0.1 and off <= 0.1)):
                self.hints_are_rests = True
            explained = self.hints_are_rests and off <= 0.1
        self._hints_s.append(refusal.closed_s)
        self._ended_at_s = ends_at_s
        return explained

    def _learn_anew(self, refusal: Closure, ends_at_s: float, now: float) -> None:
        window = self.window
        first_s = window.first_s
        if first_s is None:
            return
        # After a long time without refusals the limit has long forgotten the beginning of it.
        period_s = min(ends_at_s - first_s, _LONGEST_FIRST * refusal.closed_s)
        longest_s = max(self._hints_s, default=0.0)
        if longest_s > 1.5 * refusal.closed_s:
            period_s = min(period_s, longest_s)
        count = max(1, window.granted_since(ends_at_s - period_s))
        self.set_window(count, period_s)
        self.growth = ProbeSchedule(window, now)
        self._least_s = 0.0
        self._learn_cap(refusal, count)

    def _learn_cap(self, refusal: Closure, counted: int) -> None:
        """All that was let through was still in flight: perhaps it is that which is limited."""
        at_once = refusal.in_flight
        if at_once >= 2 and (at_once >= counted if self.cap == math.inf else at_once >= self.cap / 4):
            self.cap = min(self.cap, at_once)

    def _raise_failed(self, refusal: Closure, counted: int, needed_s: float, now: float) -> None:
        window, before, growth = self.window, self._before_raise, self.growth
        varied = (
            before is not None
            and refusal.kind is not GrantKind.EXTRA
            and window.count >= before.count + 2
            and window.period_s == before.period_s
        )
        if refusal.kind is GrantKind.EARLY:
            growth.too_short(growth.shorter_s(window.period_s))
        elif before is not None and before.period_s > window.period_s:
            growth.too_short(window.period_s)
        if before is not None and refusal.kind is not GrantKind.EXTRA:
            count = before.count
            if before.period_s == window.period_s:
                count = max(count, min(counted, window.count))
            self.set_window(count, before.period_s)
            self.sure = min(before.sure, count)
            self._before_raise = None
        first = not growth.attempts
        if varied:
            growth.varied(now, window.period_s)
        else:
            growth.failed(now, window.period_s)
        if not refusal.hinted or refusal.kind not in ATTEMPTS:
            return
        if abs(needed_s - window.period_s) <= 0.1 * window.period_s and refusal.closed_s < 0.9 * window.period_s:
            self.hints_are_rests = True
        # The first extra tells the true end of a period of which only the rest was known.
        longer = first and needed_s > _SAME_PERIOD * window.period_s
        if refusal.kind is GrantKind.EXTRA and (needed_s < window.period_s or longer):
            self.set_window(window.count, max(needed_s, self._least_s))
