"""One scope's limit, as far as its refusals tell: when the next request of the scope may go.

Nothing of a limit is seen but its 429s. What they teach is in `learned.py`; here is who may go.

| state | grants | left when | for |
|---|---|---|---|
| OPEN | those on trial: 10, then 5 and more with time; at last all | a 429 | CLOSED until now + hint |
| CLOSED | none | a 429, any | CLOSED until the later of both instants |
| | | `opens_at_s` passed, what was sent before the closure settled or silent: learn | PROBING |
| PROBING | one | it is refused | CLOSED again |
| | | it passes | LEARNED, or OPEN if nothing is known yet |
| LEARNED | within the window and the cap: what is proven at once, the rest of the count on trial | a 429 | CLOSED |
| | of a period that our clock begins, and of which four have not held yet: one, the rest once it passes | | |
| | beyond them: attempts, one by one, when growth is due and someone waits | | |

- *Passes* means answered well, or silent: not settled, but a 429 would long have come (twice the usual time of
  one). A call of 300 s must hold up neither its trial nor the probe. Silence is consent.
- A permit that ends without an answer about the limit (failed, key rejected, unused) gives its place on trial
  back: the next in line goes instead.
- A 429 without a hint closes for 1, 2, 4, … 60 s and a random bit more, but at least to the believed end of the
  period, starting anew once something has passed. A hint of zero is none: it would mean one probe per round trip.
- The refusal of a request that was sent before the current closure belongs to that closure: its hint may
  prolong it, its lack of one means nothing; what it says of the limit is a corrected count.
- What goes together with an attempt may arrive before it: if one of them is refused, it was the attempt that was
  too much; if more are, it was not the attempt alone.
- A limit given beforehand is LEARNED and proven from the start, and never exceeded: it is only learned downwards.
"""

import enum
import math
from collections.abc import Callable

from nanonets_proxy.core.ratelimit.adaptive.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.slow_start import SlowStart
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.retry_hint import MAX_HINT_S
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, closed
from nanonets_proxy.core.ratelimit.static_limits import StaticLimit
from nanonets_proxy.core.ratelimit.tickets import Outcome

_REMEMBERED_S = 3600.0  # what was learned is kept this long without a request


class LimitState(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    PROBING = "probing"
    LEARNED = "estimate"


# As attributes of their class they cost a call at each look, in Python 3.11.
_OPEN, _CLOSED, _PROBING, _LEARNED = LimitState
_PROVEN, _UNPROVEN, _PERIOD_START, _RECOVERY_PROBE, _COUNT_PROBE, _PERIOD_PROBE, _CONCURRENCY_PROBE = GrantKind


class Limit:
    """The state machine of one scope. The gate tells it the demand and obeys `right`."""

    __slots__ = (
        "_acceptance_timeout_s",
        "_backoff_s",
        "_closure",
        "_first_of_closure",
        "_grant_interval_s",
        "_idle_until_s",
        "_jitter",
        "_last_grant_s",
        "_policy",
        "_slow_start",
        "_static_limit",
        "_unconfirmed_kinds",
        "estimate",
        "in_flight",
        "opens_at_s",
        "state",
    )  # fmt: skip

    def __init__(
        self, policy: GatePolicy, jitter: Callable[[], float], static_limit: StaticLimit | None = None
    ) -> None:
        self._policy = policy
        self._jitter = jitter
        self._static_limit = static_limit
        self.state = _OPEN
        self._acceptance_timeout_s = policy.acceptance_timeout_first_s  # after which what is on trial turns silent
        self._idle_until_s = -math.inf  # before it `advance` does nothing
        self.opens_at_s = -math.inf
        self.in_flight = 0
        self.estimate = LimitEstimate()
        self._slow_start = SlowStart(policy.initial_unconfirmed)
        self._unconfirmed_kinds: dict[int, GrantKind] = {}  # by serial number, those whose fate is not known yet
        self._first_of_closure = 0  # what has a lower number was sent before the latest closure
        self._closure: Closure | None = None
        self._last_grant_s = -math.inf
        self._grant_interval_s = 0.0  # the usual time between two grants while the cap binds
        self._backoff_s = policy.backoff_first_s  # the next closure without a hint
        if static_limit is not None:
            self.state = _LEARNED
            self.estimate.set_known(static_limit.count, static_limit.period_s, static_limit.count)

    # --- who may go -----------------------------------------------------------------------------

    def grant_kind(self, now: float) -> GrantKind | None:
        """By what right one more may go at this moment, if someone waits; None: it may not."""
        if now >= self._idle_until_s:
            self.advance(now)
        slow_start = self._slow_start
        if self.state is _OPEN:
            if (
                slow_start.max_unconfirmed > self._policy.max_in_flight
            ):  # it cannot be filled: none need be on trial
                return _PROVEN
            return _UNPROVEN if len(slow_start.unconfirmed) + 1 <= slow_start.max_unconfirmed else None
        if self.state is _LEARNED:
            return self._grant_kind_learned(now)
        return _RECOVERY_PROBE if self.state is _PROBING and not slow_start.unconfirmed else None

    def _grant_kind_learned(self, now: float) -> GrantKind | None:
        estimate = self.estimate
        window = estimate.window
        used = window.used(now)
        if self.in_flight >= estimate.concurrency_limit:
            return (
                _CONCURRENCY_PROBE
                if used < window.count and estimate.concurrency_probes.due(now) and self._none_unconfirmed
                else None
            )
        if used < estimate.proven:
            if estimate.starts_to_confirm and estimate.at_period_start:
                return _PERIOD_START if self._none_unconfirmed else None
            return _PROVEN
        if used < window.count:
            return _UNPROVEN if len(self._slow_start.unconfirmed) + 1 <= self._slow_start.max_unconfirmed else None
        if self._at_static_limit or not estimate.window_probes.due(now) or not self._none_unconfirmed:
            return None
        if estimate.prefers_count_probe or self._static_limit is not None:
            return _COUNT_PROBE if estimate.count_probe_ready(now) else None
        return _PERIOD_PROBE if now >= estimate.period_probe_at_s else None

    @property
    def _at_static_limit(self) -> bool:
        return self._static_limit is not None and self.estimate.window.count >= self._static_limit.count

    @property
    def _none_unconfirmed(self) -> bool:
        """Probes go one by one, and not while anything else is on trial."""
        return not self._slow_start.unconfirmed

    def changes_at_s(self, now: float) -> float:
        """When `right` may change if nothing is settled till then; inf: never."""
        if self.state is _CLOSED:
            return (
                max(self.opens_at_s, self._last_grant_s + self._acceptance_timeout_s)
                if self.in_flight
                else self.opens_at_s
            )
        if self.state is _OPEN and not self._slow_start.unconfirmed:
            return math.inf
        times = [self._slow_start.next_timeout_s(self._acceptance_timeout_s)]
        if self.state is _LEARNED:
            estimate = self.estimate
            if self.in_flight >= estimate.concurrency_limit:
                times.append(estimate.concurrency_probes.due_at_s)
            elif estimate.window.used(now) >= estimate.window.count:
                due_at_s = estimate.window_probes.due_at_s
                times += (
                    estimate.window.frees_at_s,
                    due_at_s if estimate.prefers_count_probe else max(due_at_s, estimate.period_probe_at_s),
                )
        soonest_s = math.inf
        for at_s in times:
            if now < at_s < soonest_s:
                soonest_s = at_s
        return soonest_s

    def grant(self, kind: GrantKind, now: float) -> int:
        """One more goes, by the `right` of this moment. Gives its serial number, to be handed back in the end."""
        estimate = self.estimate
        self.in_flight += 1
        if self.in_flight >= estimate.concurrency_limit:
            self._grant_interval_s += 0.1 * (min(now - self._last_grant_s, 60.0) - self._grant_interval_s)
        self._last_grant_s = now
        serial = estimate.window.add(now)
        if kind is _PROVEN:
            return serial
        if kind is not _UNPROVEN and kind is not _RECOVERY_PROBE:
            if kind is not _PERIOD_START:
                self._slow_start.restart(1)
            self._unconfirmed_kinds[serial] = kind
        self._slow_start.unconfirmed[serial] = now
        return serial

    # --- what came of it --------------------------------------------------------------------------

    def served(self, serial: int, now: float) -> None:
        """One is back, and was answered well."""
        self.in_flight -= 1
        if self._slow_start.unconfirmed:
            self._slow_start.accepted(serial, now)
        if self.state is not _OPEN and serial >= self._first_of_closure:
            self._accepted(serial, now)

    def not_served(
        self, serial: int, granted_at_s: float, outcome: Outcome, now: float, hint_s: float | None
    ) -> None:
        """One is back by another outcome; `hint_s` is what its 429 said, from `now` on."""
        self.in_flight -= 1
        on_trial = self._slow_start.discard(serial)
        kind = self._unconfirmed_kinds.pop(serial, _UNPROVEN if on_trial else _PROVEN)
        if kind not in LIMIT_PROBES:  # what goes together arrives in any order: it is the attempt that was too much
            kind = next(iter(self._unconfirmed_kinds.values()), kind)
        if outcome is Outcome.UNUSED:
            self.estimate.window.remove(granted_at_s)
        elif outcome is Outcome.THROTTLED:
            self.estimate.window.remove(granted_at_s)
            self._note_refusal_time(now - granted_at_s)
            if on_trial and self.state is _PROBING:
                kind = _RECOVERY_PROBE
            self._refused(serial, kind, granted_at_s, now, hint_s)

    def advance(self, now: float) -> None:
        """Let time pass: silence is consent, and what has been closed for long enough is probed."""
        if now < self._idle_until_s:
            return
        for serial in self._slow_start.accepted_by_timeout(now, self._acceptance_timeout_s):
            self._accepted(serial, now)
        if self.state is _CLOSED:
            if now < self.changes_at_s(now):
                return
            if self._closure is not None:
                self.estimate.learn_from(self._closure, now)
                self._closure = None
            self.state = _PROBING
            self._slow_start.restart(1)
        # What goes from now on is silent no sooner than this either.
        self._idle_until_s = min(
            self._slow_start.next_timeout_s(self._acceptance_timeout_s), now + self._acceptance_timeout_s
        )

    def _accepted(self, serial: int, now: float) -> None:
        """One that was sent since the latest closure was answered well, or is silent."""
        estimate = self.estimate
        if self.state is _PROBING:
            self._backoff_s = self._policy.backoff_first_s
            self.state = _LEARNED if estimate.known else _OPEN
        if self._unconfirmed_kinds:
            match self._unconfirmed_kinds.pop(serial, None):
                case GrantKind.PERIOD_START:
                    estimate.period_start_accepted()
                case GrantKind.COUNT_PROBE:
                    estimate.raise_count(now)
                case GrantKind.PERIOD_PROBE:
                    estimate.shorten_period(now)
                case GrantKind.CONCURRENCY_PROBE:
                    estimate.raise_concurrency()
        if (
            self.state is _LEARNED
            and not self._slow_start.unconfirmed
            and estimate.window.used(now) >= estimate.window.count
        ):
            estimate.confirm_window(now)

    def _refused(self, serial: int, kind: GrantKind, granted_at_s: float, now: float, hint_s: float | None) -> None:
        fresh = serial >= self._first_of_closure
        closed_s = hint_s if hint_s is not None and 0 < hint_s < math.inf else None
        if not fresh:
            if self._closure is not None:
                self._closure.in_flight -= 1
                if self._closure.kind in LIMIT_PROBES:  # it was not the attempt alone that was too much
                    self._closure.kind = _PROVEN
            if closed_s is None:
                return
        hinted = closed_s is not None
        if closed_s is None:
            backoff_s = self._backoff_s * (1 + self._policy.backoff_jitter * self._jitter())
            self._backoff_s = min(2 * self._backoff_s, self._policy.backoff_last_s)
            closed_s = max(backoff_s, self.estimate.estimated_end_s - now)
        self.opens_at_s = max(self.opens_at_s, now + closed_s)
        if fresh:
            self._closure = Closure(kind, granted_at_s, closed_s, hinted, self.in_flight)
        if self.state is not _CLOSED:
            self.state = _CLOSED
            self._first_of_closure = self.estimate.window.granted + 1
            self._slow_start.restart(1)
            self._unconfirmed_kinds.clear()

    # --- what others want to know -----------------------------------------------------------------

    def forecast_s(self, position: int, now: float) -> float:
        """How long the one at this place of the line will wait; nan while too little is known."""
        estimate = self.estimate
        if not estimate.proven:
            return math.nan
        wait_s = max(estimate.window.forecast_at_s(position, max(now, self.opens_at_s)) - now, 0.0)
        return (
            max(wait_s, position * self._grant_interval_s)
            if self.in_flight >= estimate.concurrency_limit
            else wait_s
        )

    def snapshot(self, scope: str, now: float) -> ScopeSnapshot | None:
        """What is worth keeping; None if nothing is known and the scope is open."""
        estimate = self.estimate
        window = estimate.window
        opens_in_s = min(max(0.0, self.opens_at_s - now), MAX_HINT_S)
        if not estimate.known:
            return closed(scope, opens_in_s) if opens_in_s else None
        used = window.used(now)
        return ScopeSnapshot(
            scope=scope,
            count=window.count,
            period_s=window.period_s,
            proven=estimate.proven,
            concurrency_limit=None if estimate.concurrency_limit == math.inf else estimate.concurrency_limit,
            used=used,
            newest_age_s=now - window.newest_s if used else 0.0,
            opens_in_s=opens_in_s,
        )

    def restore(self, snapshot: ScopeSnapshot, now: float, away_s: float) -> None:
        """Take up what was known `away_s` ago; a limit given beforehand stays the upper bound."""
        if snapshot.count is not None:
            self._restore_window(snapshot, snapshot.count, now - away_s)
        if snapshot.opens_in_s > away_s:
            self.opens_at_s = now + snapshot.opens_in_s - away_s
            self.state = _CLOSED

    def _restore_window(self, snapshot: ScopeSnapshot, count: float, saved_at_s: float) -> None:
        estimate, static_limit = self.estimate, self._static_limit
        period_s = snapshot.period_s
        if static_limit is not None:
            count, period_s = min(count, static_limit.count), max(period_s, static_limit.period_s)
        estimate.set_known(count, period_s, min(snapshot.proven, count))
        estimate.concurrency_limit = (
            math.inf if snapshot.concurrency_limit is None else max(1.0, snapshot.concurrency_limit)
        )
        for _ in range(min(snapshot.used, int(count))):
            estimate.window.add(saved_at_s - snapshot.newest_age_s)
        self.state = _LEARNED

    def can_be_forgotten(self, now: float) -> bool:
        """Whether a new `Limit` would serve as well: nothing is out, and nothing is known that still counts."""
        if self.in_flight or now < self.opens_at_s:
            return False
        return not self.estimate.known or now >= max(self._last_grant_s, self.opens_at_s) + _REMEMBERED_S

    def _note_refusal_time(self, refusal_delay_s: float) -> None:
        self._idle_until_s = -math.inf
        # Up at once, down slowly: too much patience costs a moment, too little a round of refusals.
        usual_s = self.estimate.refusal_delay_s = max(
            refusal_delay_s, 0.8 * self.estimate.refusal_delay_s + 0.2 * refusal_delay_s
        )
        if usual_s:
            self._acceptance_timeout_s = min(
                max(2 * usual_s, self._policy.acceptance_timeout_min_s), self._policy.acceptance_timeout_max_s
            )
