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

from nanonets_proxy.core.ratelimit.closure import ATTEMPTS, Closure, GrantKind
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy, Outcome
from nanonets_proxy.core.ratelimit.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.retry_hint import MAX_HINT_S
from nanonets_proxy.core.ratelimit.slow_start import SlowStart
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, closed
from nanonets_proxy.core.ratelimit.static_limits import StaticLimit

_REMEMBERED_S = 3600.0  # what was learned is kept this long without a request


class LimitState(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    PROBING = "probing"
    LEARNED = "learned"


# As attributes of their class they cost a call at each look, in Python 3.11.
_OPEN, _CLOSED, _PROBING, _LEARNED = LimitState
_PLAIN, _TRIAL, _FIRST, _PROBE, _EXTRA, _EARLY, _WIDER = GrantKind


class Limit:
    """The state machine of one scope. The gate tells it the demand and obeys `right`."""

    __slots__ = (
        "_attempts", "_backoff_s", "_between_s", "_first_of_closure", "_idle_until_s", "_jitter", "_last_grant_s",
        "_patience_s", "_policy", "_preset", "_refusal", "_trial", "in_flight", "learned", "opens_at_s", "state",
    )  # fmt: skip

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float], preset: StaticLimit | None = None) -> None:
        self._policy = policy
        self._jitter = jitter
        self._preset = preset
        self.state = _OPEN
        self._patience_s = policy.patience_first_s  # after which what is on trial turns silent
        self._idle_until_s = -math.inf  # before it `advance` does nothing
        self.opens_at_s = -math.inf
        self.in_flight = 0
        self.learned = LimitEstimate()
        self._trial = SlowStart(policy.cold_trial)
        self._attempts: dict[int, GrantKind] = {}  # by serial number, those whose fate is not known yet
        self._first_of_closure = 0  # what has a lower number was sent before the latest closure
        self._refusal: Closure | None = None
        self._last_grant_s = -math.inf
        self._between_s = 0.0  # the usual time between two grants while the cap binds
        self._backoff_s = policy.backoff_first_s  # the next closure without a hint
        if preset is not None:
            self.state = _LEARNED
            self.learned.given(preset.count, preset.period_s, preset.count)

    # --- who may go -----------------------------------------------------------------------------

    def right(self, now: float) -> GrantKind | None:
        """By what right one more may go at this moment, if someone waits; None: it may not."""
        if now >= self._idle_until_s:
            self.advance(now)
        trial = self._trial
        if self.state is _OPEN:
            if trial.size > self._policy.max_in_flight:  # it cannot be filled: none need be on trial
                return _PLAIN
            return _TRIAL if len(trial.out) + 1 <= trial.size else None
        if self.state is _LEARNED:
            return self._right_learned(now)
        return _PROBE if self.state is _PROBING and not trial.out else None

    def _right_learned(self, now: float) -> GrantKind | None:
        learned = self.learned
        window = learned.window
        used = window.used(now)
        if self.in_flight >= learned.cap:
            return _WIDER if used < window.count and learned.wider.due(now) and self._may_try else None
        if used < learned.sure:
            if learned.starts_to_feel and learned.at_start:
                return _FIRST if self._may_try else None
            return _PLAIN
        if used < window.count:
            return _TRIAL if len(self._trial.out) + 1 <= self._trial.size else None
        if self._at_preset or not learned.growth.due(now) or not self._may_try:
            return None
        if learned.grows_by_count or self._preset is not None:
            return _EXTRA if learned.extra_would_tell(now) else None
        return _EARLY if now >= learned.early_at_s else None

    @property
    def _at_preset(self) -> bool:
        return self._preset is not None and self.learned.window.count >= self._preset.count

    @property
    def _may_try(self) -> bool:
        """Probes go one by one, and not while anything else is on trial."""
        return not self._trial.out

    def changes_at_s(self, now: float) -> float:
        """When `right` may change if nothing is settled till then; inf: never."""
        if self.state is _CLOSED:
            return (
                max(self.opens_at_s, self._last_grant_s + self._patience_s) if self.in_flight else self.opens_at_s
            )
        if self.state is _OPEN and not self._trial.out:
            return math.inf
        times = [self._trial.next_silent_s(self._patience_s)]
        if self.state is _LEARNED:
            learned = self.learned
            if self.in_flight >= learned.cap:
                times.append(learned.wider.due_at_s)
            elif learned.window.used(now) >= learned.window.count:
                due_at_s = learned.growth.due_at_s
                times += (
                    learned.window.frees_at_s,
                    due_at_s if learned.grows_by_count else max(due_at_s, learned.early_at_s),
                )
        soonest_s = math.inf
        for at_s in times:
            if now < at_s < soonest_s:
                soonest_s = at_s
        return soonest_s

    def grant(self, kind: GrantKind, now: float) -> int:
        """One more goes, by the `right` of this moment. Gives its serial number, to be handed back in the end."""
        learned = self.learned
        self.in_flight += 1
        if self.in_flight >= learned.cap:
            self._between_s += 0.1 * (min(now - self._last_grant_s, 60.0) - self._between_s)
        self._last_grant_s = now
        serial = learned.window.add(now)
        if kind is _PLAIN:
            return serial
        if kind is not _TRIAL and kind is not _PROBE:
            if kind is not _FIRST:
                self._trial.restart(1)
            self._attempts[serial] = kind
        self._trial.out[serial] = now
        return serial

    # --- what came of it --------------------------------------------------------------------------

    def served(self, serial: int, now: float) -> None:
        """One is back, and was answered well."""
        self.in_flight -= 1
        if self._trial.out:
            self._trial.passed(serial, now)
        if self.state is not _OPEN and serial >= self._first_of_closure:
            self._passed(serial, now)

    def not_served(
        self, serial: int, granted_at_s: float, outcome: Outcome, now: float, hint_s: float | None
    ) -> None:
        """One is back by another outcome; `hint_s` is what its 429 said, from `now` on."""
        self.in_flight -= 1
        on_trial = self._trial.drop(serial)
        kind = self._attempts.pop(serial, _TRIAL if on_trial else _PLAIN)
        if kind not in ATTEMPTS:  # what goes together arrives in any order: it is the attempt that was too much
            kind = next(iter(self._attempts.values()), kind)
        if outcome is Outcome.UNUSED:
            self.learned.window.remove(granted_at_s)
        elif outcome is Outcome.THROTTLED:
            self.learned.window.remove(granted_at_s)
            self._note_refusal_time(now - granted_at_s)
            if on_trial and self.state is _PROBING:
                kind = _PROBE
            self._refused(serial, kind, granted_at_s, now, hint_s)

    def advance(self, now: float) -> None:
        """Let time pass: silence is consent, and what has been closed for long enough is probed."""
        if now < self._idle_until_s:
            return
        for serial in self._trial.silent(now, self._patience_s):
            self._passed(serial, now)
        if self.state is _CLOSED:
            if now < self.changes_at_s(now):
                return
            if self._refusal is not None:
                self.learned.learn(self._refusal, now)
                self._refusal = None
            self.state = _PROBING
            self._trial.restart(1)
        # What goes from now on is silent no sooner than this either.
        self._idle_until_s = min(self._trial.next_silent_s(self._patience_s), now + self._patience_s)

    def _passed(self, serial: int, now: float) -> None:
        """One that was sent since the latest closure was answered well, or is silent."""
        learned = self.learned
        if self.state is _PROBING:
            self._backoff_s = self._policy.backoff_first_s
            self.state = _LEARNED if learned.known else _OPEN
        if self._attempts:
            match self._attempts.pop(serial, None):
                case GrantKind.FIRST:
                    learned.start_passed()
                case GrantKind.EXTRA:
                    learned.raise_count(now)
                case GrantKind.EARLY:
                    learned.raise_pace(now)
                case GrantKind.WIDER:
                    learned.widen()
        if self.state is _LEARNED and not self._trial.out and learned.window.used(now) >= learned.window.count:
            learned.bear(now)

    def _refused(self, serial: int, kind: GrantKind, granted_at_s: float, now: float, hint_s: float | None) -> None:
        fresh = serial >= self._first_of_closure
        closed_s = hint_s if hint_s is not None and 0 < hint_s < math.inf else None
        if not fresh:
            if self._refusal is not None:
                self._refusal.in_flight -= 1
                if self._refusal.kind in ATTEMPTS:  # it was not the attempt alone that was too much
                    self._refusal.kind = _PLAIN
            if closed_s is None:
                return
        hinted = closed_s is not None
        if closed_s is None:
            backoff_s = self._backoff_s * (1 + self._policy.backoff_jitter * self._jitter())
            self._backoff_s = min(2 * self._backoff_s, self._policy.backoff_last_s)
            closed_s = max(backoff_s, self.learned.believed_end_s - now)
        self.opens_at_s = max(self.opens_at_s, now + closed_s)
        if fresh:
            self._refusal = Closure(kind, granted_at_s, closed_s, hinted, self.in_flight)
        if self.state is not _CLOSED:
            self.state = _CLOSED
            self._first_of_closure = self.learned.window.granted + 1
            self._trial.restart(1)
            self._attempts.clear()

    # --- what others want to know -----------------------------------------------------------------

    def forecast_s(self, place: int, now: float) -> float:
        """How long the one at this place of the line will wait; nan while too little is known."""
        learned = self.learned
        if not learned.sure:
            return math.nan
        wait_s = max(learned.window.granted_at_s(place, max(now, self.opens_at_s)) - now, 0.0)
        return max(wait_s, place * self._between_s) if self.in_flight >= learned.cap else wait_s

    def memory(self, scope: str, now: float) -> ScopeSnapshot | None:
        """What is worth keeping; None if nothing is known and the scope is open."""
        learned = self.learned
        window = learned.window
        opens_in_s = min(max(0.0, self.opens_at_s - now), MAX_HINT_S)
        if not learned.known:
            return closed(scope, opens_in_s) if opens_in_s else None
        used = window.used(now)
        return ScopeSnapshot(
            scope=scope,
            count=window.count,
            period_s=window.period_s,
            sure=learned.sure,
            cap=None if learned.cap == math.inf else learned.cap,
            used=used,
            newest_age_s=now - window.newest_s if used else 0.0,
            opens_in_s=opens_in_s,
        )

    def restore(self, memory: ScopeSnapshot, now: float, away_s: float) -> None:
        """Take up what was known `away_s` ago; a limit given beforehand stays the upper bound."""
        if memory.count is not None:
            self._restore_window(memory, memory.count, now - away_s)
        if memory.opens_in_s > away_s:
            self.opens_at_s = now + memory.opens_in_s - away_s
            self.state = _CLOSED

    def _restore_window(self, memory: ScopeSnapshot, count: float, saved_at_s: float) -> None:
        learned, preset = self.learned, self._preset
        period_s = memory.period_s
        if preset is not None:
            count, period_s = min(count, preset.count), max(period_s, preset.period_s)
        learned.given(count, period_s, min(memory.sure, count))
        learned.cap = math.inf if memory.cap is None else max(1.0, memory.cap)
        for _ in range(min(memory.used, int(count))):
            learned.window.add(saved_at_s - memory.newest_age_s)
        self.state = _LEARNED

    def forgettable(self, now: float) -> bool:
        """Whether a new `Limit` would serve as well: nothing is out, and nothing is known that still counts."""
        if self.in_flight or now < self.opens_at_s:
            return False
        return not self.learned.known or now >= max(self._last_grant_s, self.opens_at_s) + _REMEMBERED_S

    def _note_refusal_time(self, refusal_s: float) -> None:
        self._idle_until_s = -math.inf
        # Up at once, down slowly: too much patience costs a moment, too little a round of refusals.
        usual_s = self.learned.refusal_s = max(refusal_s, 0.8 * self.learned.refusal_s + 0.2 * refusal_s)
        if usual_s:
            self._patience_s = min(max(2 * usual_s, self._policy.patience_least_s), self._policy.patience_most_s)
