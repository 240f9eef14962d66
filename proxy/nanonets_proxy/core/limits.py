"""One scope's limit, as far as its refusals tell: when the next request of the scope may go.

Nothing of a limit is seen but its 429s. The first one closes the scope for as long as it says; then it
opens in rounds of 1, 2, 4, … requests, each sent once the one before is known, or presumed, to have passed.

| state | grants | left when | for |
|---|---|---|---|
| OPEN | all | a 429 | CLOSED until now + hint |
| CLOSED | none | a 429, any | CLOSED until the later of both instants |
| | | `opens_at_s` passed, what was sent before the closure settled or silent | PROBING, a round of one |
| PROBING | its round's rest | a 429 | CLOSED again |
| | | every permit of the round served or silent | PROBING with twice the round, or |
| | | the same, and the doubled round would exceed the demand or the gate | OPEN |

- *Silent* means not yet settled, but a 429 would long have come (twice the usual time of one): a call of
  300 s must hold up neither its round nor the probe. Silence is consent.
- A permit that ends without an answer about the limit (failed, key rejected, unused) gives its place in the
  round back: the next in line probes instead.
- A 429 without a hint closes for 1, 2, 4, … 60 s and a random bit more, starting anew once something has
  been served. A hint of zero is none: it would mean one probe per round trip.
- The refusal of a request that was sent before the current closure belongs to that closure: its hint may
  prolong it, its lack of one means nothing.
"""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass


class Outcome(enum.Enum):
    """How a permit ended."""

    SERVED = "served"
    """Answered, and neither 429 nor 401: the limit let it pass."""
    THROTTLED = "throttled"
    """Refused with a 429."""
    KEY_REJECTED = "key_rejected"
    """Refused with a 401: tells nothing about the limit."""
    FAILED = "failed"
    """No answer; unknown whether the upstream counted it."""
    UNUSED = "unused"
    """Handed back before anything was sent."""


class LimitState(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """The gate's bounds and the constants of its reopening."""

    max_in_flight: int
    """Permits out at the same time, all scopes together."""
    max_waiting: int
    """Tickets waiting at the same time, all scopes together. A ticket waits at least until the next poll."""
    backoff_first_s: float = 1.0
    backoff_last_s: float = 60.0  # the vendor advises 30, 60, 120 s; a probe is one request, it may come sooner
    backoff_jitter: float = 0.25
    """Each backoff is longer by up to this share: several proxies on one account must not probe in step."""
    patience_least_s: float = 1.0
    """A 429 is not presumed absent sooner than this after its request went."""
    patience_most_s: float = 30.0

    def __post_init__(self) -> None:
        if self.max_in_flight < 1 or self.max_waiting < 1:
            raise ValueError("max_in_flight and max_waiting are at least 1: at 0 nothing would ever be sent")


class Limit:
    """The state machine of one scope. The gate tells it the demand and obeys `may_grant`."""

    __slots__ = (
        "_backoff_s",
        "_first_of_closure",
        "_jitter",
        "_last_grant_s",
        "_policy",
        "_refusal_s",
        "_round",
        "_round_left",
        "_round_out",
        "_round_size",
        "in_flight",
        "opens_at_s",
        "state",
    )

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        self._policy = policy
        self._jitter = jitter
        self.state = LimitState.OPEN
        self.opens_at_s = -math.inf
        self.in_flight = 0
        self._last_grant_s = -math.inf
        self._refusal_s = 0.0  # the usual time from a grant to its 429
        self._backoff_s = policy.backoff_first_s  # the next closure without a hint
        self._round = 0  # counts closures and rounds, so that a permit knows whether it is of the current one
        self._first_of_closure = 0  # permits of earlier rounds were sent before the latest closure
        self._round_size = self._round_left = self._round_out = 0

    @property
    def may_grant(self) -> bool:
        """Whether one more may go at this moment; `advance` first."""
        return self.state is LimitState.OPEN or (self.state is LimitState.PROBING and self._round_left > 0)

    @property
    def changes_at_s(self) -> float:
        """When `advance` will find something new if nothing is settled till then; inf: never."""
        if self.state is LimitState.CLOSED:
            return max(self.opens_at_s, self._silent_at_s) if self.in_flight else self.opens_at_s
        if self.state is LimitState.PROBING and self._round_left == 0:
            return self._silent_at_s if self._round_out else -math.inf
        return math.inf

    def grant(self, now: float) -> int:
        """One more goes. Returns the number of its round, to be handed back to `settle`."""
        self.in_flight += 1
        self._last_grant_s = now
        if self.state is LimitState.PROBING:
            self._round_left -= 1
            self._round_out += 1
        return self._round

    def settle(
        self, round_no: int, granted_at_s: float, outcome: Outcome, now: float, hint_s: float | None
    ) -> None:
        """One is back; `hint_s` is what its 429 said, from `now` on."""
        self.in_flight -= 1
        if outcome is Outcome.THROTTLED:
            self._note_refusal_time(now - granted_at_s)
            self._refused(now, hint_s, fresh=round_no >= self._first_of_closure)
            return
        if outcome is Outcome.SERVED and round_no >= self._first_of_closure:
            self._backoff_s = self._policy.backoff_first_s
        if self.state is LimitState.PROBING and round_no == self._round:
            self._round_out -= 1
            if outcome is not Outcome.SERVED:
                self._round_left += 1

    def advance(self, now: float, waiting: int) -> None:
        """Let time pass: open what has been closed for long enough, begin the next round. `waiting` is not 0."""
        if self.state is LimitState.OPEN or now < self.changes_at_s:
            return
        size = 1 if self.state is LimitState.CLOSED else self._round_size * 2
        if size > 1 and (size > waiting or size >= self._policy.max_in_flight):
            self.state = LimitState.OPEN
            return
        self.state = LimitState.PROBING
        self._round += 1
        self._round_size = self._round_left = size
        self._round_out = 0

    def forgettable(self, now: float) -> bool:
        """Whether a new `Limit` would serve as well: nothing is out, and no closure is near."""
        settled_at_s = self.opens_at_s + self._policy.backoff_last_s
        return self.in_flight == 0 and (self.state is LimitState.OPEN or now >= settled_at_s)

    @property
    def _silent_at_s(self) -> float:
        policy = self._policy
        patience_s = min(max(2 * self._refusal_s, policy.patience_least_s), policy.patience_most_s)
        return self._last_grant_s + patience_s

    def _note_refusal_time(self, refusal_s: float) -> None:
        # Up at once, down slowly: too much patience costs a moment, too little a round of refusals.
        self._refusal_s = max(refusal_s, 0.8 * self._refusal_s + 0.2 * refusal_s)

    def _refused(self, now: float, hint_s: float | None, *, fresh: bool) -> None:
        if hint_s is not None and 0 < hint_s < math.inf:
            closed_s = hint_s
        elif fresh:
            closed_s = self._backoff_s * (1 + self._policy.backoff_jitter * self._jitter())
            self._backoff_s = min(2 * self._backoff_s, self._policy.backoff_last_s)
        else:
            return
        self.opens_at_s = max(self.opens_at_s, now + closed_s)
        if self.state is not LimitState.CLOSED:
            self.state = LimitState.CLOSED
            self._round += 1
            self._first_of_closure = self._round
