"""The limit of one scope: when the next request of the scope may go.

The upstream reveals a limit only by its refusals (429). `estimate/lessons.py` draws the conclusions. This module
decides on grants:

| state | grants | event | next state |
|---|---|---|---|
| OPEN: the limit is unknown | unconfirmed requests, as many as slow start allows | a 429 | CLOSED |
| CLOSED: as long as `closure_timer.py` decides | none | another 429 | CLOSED, until the later of both ends |
| | | the closure is over, and each request sent before it is settled or timed out | PROBING |
| PROBING | one request, the recovery probe | a 429 | CLOSED |
| | | the probe is accepted | LEARNED; OPEN if the limit is still unknown |
| LEARNED: the limit is estimated | see `learned_grants.py` | a 429 | CLOSED |
| | | the concurrency limit explains a 429 | LEARNED, with a lower concurrency limit |

Rules:
- A request is *accepted* when it is served, or by timeout: once a 429 would have come. A request that takes 300 s
  must delay neither slow start nor the recovery probe.
- A permit whose outcome says nothing about the limit (failed, key rejected, unused) frees its unconfirmed place.
- A 429 that the concurrency limit explains closes nothing, if its hint is short and a request was served since the
  last one. The next request may go when another one ends.
- A 429 to a request that was sent before the closure belongs to that closure. Its hint may prolong the closure;
  without a hint it only corrects the count.
- Requests that are sent together may arrive in any order. If one request beside a limit probe is refused, the probe
  exceeded the limit. If more are refused, the probe alone does not explain the refusals.
- A stated limit (`stated_limits.py`) is LEARNED and proven from the start. The estimate never exceeds it.
- A limit may also be closed, or its last lesson undone, for reasons outside the limit: see `close` and `restore`.
"""

import enum
import math
from collections.abc import Callable

from nanonets_proxy.core.ratelimit.adaptive.announced_quota import AnnouncedQuota
from nanonets_proxy.core.ratelimit.adaptive.closure_timer import MAX_CHEAP_HINT_S, ClosureTimer
from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.learned_grants import LearnedGrants
from nanonets_proxy.core.ratelimit.adaptive.slow_start import SlowStart
from nanonets_proxy.core.ratelimit.adaptive.stated_limits import StatedLimits
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit
from nanonets_proxy.core.ratelimit.tickets import Outcome


class LimitState(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    PROBING = "probing"
    LEARNED = "learned"


# In Python 3.11 each access to a member through its enum costs a call.
_OPEN, _CLOSED, _PROBING, _LEARNED = LimitState
_PROVEN, _UNPROVEN, _PERIOD_START, _RECOVERY_PROBE, _COUNT_PROBE, _PERIOD_PROBE, _CONCURRENCY_PROBE = GrantKind


class Limit:
    """The state machine of one scope. The gate grants what `grant_kind` allows and reports each outcome."""

    __slots__ = (
        *("_first_since_closure", "_idle_until_s", "_policy", "_served_since_refusal"),
        *("announced_quota", "estimate", "grant_interval_s", "grants", "in_flight", "last_grant_s", "opens_at_s"),
        *("slow_start", "stated", "state", "timer"),
    )

    def __init__(
        self, policy: GatePolicy, jitter: Callable[[], float], static_limit: StaticLimit | None = None
    ) -> None:
        self._policy = policy
        self.state = _OPEN
        self._idle_until_s = -math.inf  # `advance` does nothing before this instant
        self.opens_at_s = -math.inf
        self.in_flight = 0
        self.estimate = LimitEstimate()
        self.stated = StatedLimits(static_limit)
        self.announced_quota = AnnouncedQuota()
        self.slow_start = SlowStart(policy)
        self.grants = LearnedGrants(self.estimate, self.slow_start, self.stated)
        self._first_since_closure = 0  # serial number of the first grant since the latest closure
        self.last_grant_s = -math.inf
        """When the latest request was granted; -inf if none was."""
        self.grant_interval_s = 0.0
        """The usual time between two grants at the concurrency limit."""
        self.timer = ClosureTimer(policy, jitter)
        self._served_since_refusal = False
        self._apply_stated()

    def grant_kind(self, now: float, cost: float = 1) -> GrantKind | None:
        """Returns the kind of grant that one more request of this cost may have now; None if it must wait."""
        if now >= self._idle_until_s:
            self.advance(now)
        quota = self.announced_quota
        if now < quota.until_s and quota.holds(self.estimate.window.granted_units, cost, now):
            return None
        slow_start = self.slow_start
        if self.state is _OPEN:
            if slow_start.max_unconfirmed > self._policy.max_in_flight:  # slow start no longer limits anything
                return _PROVEN
            return _UNPROVEN if slow_start.has_room(now) else None
        if self.state is _LEARNED:
            return self.grants.kind(now, cost, self.in_flight)
        may_probe = self.state is _PROBING and not slow_start.unconfirmed
        return _RECOVERY_PROBE if may_probe and self.grants.fits_stated_limit(now, cost) else None

    def changes_at_s(self, now: float, cost: float = 1) -> float:
        """Returns when `grant_kind` of this cost may change if no permit settles before; inf: never."""
        if self.announced_quota.holds(self.estimate.window.granted_units, cost, now):
            return self.announced_quota.until_s
        if self.state is _CLOSED:
            return self._closed_until_s
        if self.state is _OPEN and not self.slow_start.unconfirmed:
            return math.inf
        times: tuple[float, ...] = (self.slow_start.next_timeout_at_s(),)
        if self.state is _LEARNED:
            times += self.grants.change_times_s(now, cost, self.in_flight)
        elif not self.grants.fits_stated_limit(now, cost):
            times += (self.estimate.window.frees_at_s,)
        soonest_s = math.inf
        for at_s in times:
            if now < at_s < soonest_s:
                soonest_s = at_s
        return soonest_s

    @property
    def _closed_until_s(self) -> float:
        if not self.in_flight:
            return self.opens_at_s
        return max(self.opens_at_s, self.last_grant_s + self.slow_start.timeout_s)

    def grant(self, kind: GrantKind, now: float, cost: float = 1) -> int:
        """Notes a grant that `grant_kind` allows now. Returns its serial number, for `served` or `not_served`."""
        estimate = self.estimate
        self.in_flight += 1
        if self.in_flight >= estimate.concurrency.limit:
            self.grant_interval_s += 0.1 * (min(now - self.last_grant_s, 60.0) - self.grant_interval_s)
        self.last_grant_s = now
        if kind is _PERIOD_PROBE:
            estimate.period_probe_granted(now)
        serial = estimate.window.add(now, cost)
        if kind is _PROVEN:
            return serial
        if kind is not _UNPROVEN and kind is not _RECOVERY_PROBE:
            self.grants.note_grant(serial, kind, now)
        self.slow_start.unconfirmed[serial] = now
        self.grants.note_unconfirmed(serial, now)
        return serial

    def adopt(self, granted_at_s: float) -> int:
        """Notes a request that another process was granted, and that the window has already. Returns as `grant`."""
        self.in_flight += 1
        self.last_grant_s = max(self.last_grant_s, granted_at_s)
        # While the scope is closed or probed, a refusal of this request belongs to the closure.
        return self.estimate.window.granted if self.state in (_OPEN, _LEARNED) else self._first_since_closure - 1

    def served(self, serial: int, now: float) -> None:
        """Notes a served request."""
        self.in_flight -= 1
        self._served_since_refusal = True
        if self.slow_start.unconfirmed:
            self.slow_start.accepted(serial, now)
        if self.state is not _OPEN and serial >= self._first_since_closure:
            self.accepted(serial, now)

    def not_served(
        self, serial: int, granted_at_s: float, outcome: Outcome, now: float, hint_s: float | None, cost: float = 1
    ) -> None:
        """Notes any other outcome of a grant of this cost; `hint_s` is the hint of a 429, counted from `now`."""
        self.in_flight -= 1
        unconfirmed = self.slow_start.discard(serial)
        kind = self.grants.end_kind(serial, _UNPROVEN if unconfirmed else _PROVEN)
        if outcome is Outcome.UNUSED:
            self.estimate.window.remove(granted_at_s, cost)
        elif outcome is Outcome.THROTTLED:
            self.estimate.window.remove(granted_at_s, cost)
            if kind is _COUNT_PROBE:
                self.grants.count_probe_refused(cost, now)
            self._idle_until_s = -math.inf
            self.slow_start.note_refusal_delay(now - granted_at_s)
            self.estimate.refusal_delay_s = self.slow_start.refusal_delay_s
            if unconfirmed and self.state is _PROBING:
                kind = _RECOVERY_PROBE
            self._refused(serial, kind, granted_at_s, now, hint_s, cost)
            self.opens_at_s = self.timer.adjust(self.estimate, self.opens_at_s)

    def advance(self, now: float) -> None:
        """Applies the passage of time: accepts requests by timeout, and ends closures."""
        if now < self._idle_until_s:
            return
        for serial in self.slow_start.accept_by_timeout(now):
            self.accepted(serial, now)
        if self.state is _CLOSED:
            if now < self._closed_until_s:
                return
            self.timer.learn(self.estimate, now)
            self.state = _PROBING
            self.slow_start.restart(1)
        # Before this instant, no request is accepted by timeout, not even if it is granted from now on.
        self._idle_until_s = min(self.slow_start.next_timeout_at_s(), now + self.slow_start.timeout_s)

    def accepted(self, serial: int, now: float) -> None:
        """Notes that a request granted since the latest closure was served or accepted by timeout."""
        estimate = self.estimate
        if self.state is _PROBING:
            self.timer.probe_accepted(estimate, self.last_grant_s, now)
            self.slow_start.restart(self.timer.room_after_probe)
            self.state = _LEARNED if estimate.known else _OPEN
        self.grants.accepted(serial, now)
        if self.state is _LEARNED and self.grants.used_up(now):
            estimate.used_up(now)

    def _refused(
        self, serial: int, kind: GrantKind, granted_at_s: float, now: float, hint_s: float | None, cost: float
    ) -> None:
        estimate, timer = self.estimate, self.timer
        if serial < self._first_since_closure:
            if (opens_at_s := timer.late_refusal(kind, granted_at_s, now, hint_s, estimate)) is None:
                return
        else:
            estimate.window.refused_cost = cost
            served_between, self._served_since_refusal = self._served_since_refusal, False
            is_cheap = (hint_s or 0.0) <= MAX_CHEAP_HINT_S
            if served_between and is_cheap and estimate.concurrency.explains(kind, self.in_flight):
                estimate.concurrency.refused(self.in_flight, hint_s or 0.0, now)
                return
            if self.slow_start.is_cold and not estimate.known:
                timer.refusals_left = self._policy.initial_unconfirmed
            opens_at_s = timer.begin(kind, granted_at_s, now, hint_s, estimate, self.in_flight)
        self.opens_at_s = max(self.opens_at_s, opens_at_s)
        self._begin_closure()

    def _begin_closure(self) -> None:
        if self.state is not _CLOSED:
            self.state = _CLOSED
            self._first_since_closure = self.estimate.window.granted + 1
            self.slow_start.restart(1)
            self.grants.forget_unconfirmed()

    def close(self, until_s: float) -> None:
        """Closes the scope until then. Nothing is learned from this closure."""
        self.opens_at_s = until_s
        self.timer.closure = None
        self._begin_closure()

    def reopen(self, now: float) -> None:
        """Ends a closure, with a probe. Nothing is learned from this closure."""
        self.opens_at_s = self.timer.hinted_end_s = now
        self.timer.closure = None
        self.state = _PROBING
        self.slow_start.restart(1)
        self._idle_until_s = -math.inf

    def restore(self, belief: Belief) -> None:
        """Returns to an earlier estimate: the refusals since then did not concern the limit."""
        self.timer.closure = None
        self.estimate.restore(belief)
        stated = self.stated.strictest
        if stated is not None and self.estimate.window.count > stated.count:
            self.estimate.set_static(stated)  # the limit is younger than the belief
        if self.state in (_OPEN, _LEARNED):
            self.state = _LEARNED if self.estimate.known else _OPEN

    def change_policy(self, policy: GatePolicy, static_limit: StaticLimit | None) -> None:
        """Applies another policy, except its times of backoffs and of acceptance, which no setting changes.

        A static limit that differs from the present one replaces the estimate. If there is no static limit any
        more, the estimate stays. Earlier grants count under the new limit too.
        """
        self._policy = policy
        self._idle_until_s = -math.inf
        if self.stated.configure(static_limit):
            self._apply_stated()

    def _apply_stated(self) -> None:
        strictest = self.stated.strictest
        if strictest is None:
            self.estimate.forget_static()
        else:
            self.estimate.set_static(strictest)
            if self.state is _OPEN:
                self.state = _LEARNED

    def note_advice(self, serial: int, advice: Advice, now: float) -> None:
        """Applies what the response to grant number `serial` announced about the limit."""
        window = self.estimate.window
        units_since = window.newest_units(window.granted - serial)
        self.announced_quota.note_advice(window.granted_units - units_since, advice, now)
        if advice.limit is not None and self.stated.announce(advice.limit, now):
            self._apply_stated()

    def note_sleep(self, slept_s: float) -> None:
        """Notes that the machine slept, while the clock of the gate stood still and that of the upstream ran."""
        self.opens_at_s -= slept_s
        self.timer.hinted_end_s -= slept_s
        self.announced_quota.until_s -= slept_s
        self._idle_until_s = -math.inf
        self.estimate.window.age(slept_s)
        self.estimate.refused_s -= slept_s
