"""Slow start: how many unconfirmed requests may be in flight.

A request is *unconfirmed* from its grant until it is served, or until its acceptance timeout: by then a 429
would have come. When the requests reach the limit, about as many are refused as are unconfirmed.

| state | room for unconfirmed requests |
|---|---|
| COLD: nothing was refused yet | 64; 0.5 more for each accepted request, and another 0.5 up to a second later |
| after a refusal | 1, and one more for each accepted request: 1, 2, 4, 8, … |
| the same, for one replica's share of a limit | 1: each replica may draw only one 429, until a leader decides |

A cold start lets 64 requests go, one acceptance timeout later 96 others, then 144. So a job that meets no limit
waits for milliseconds, and the next job of the same size does not wait at all. The second of delay bounds the
refusals of a first job that meets a limit: to 64, and half of what the limit accepted.
"""

import math

from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

_COLD_GROWTH = 0.5
_LATER_S = 1.0
_MIN_TIMEOUT_S, _MAX_TIMEOUT_S = 0.05, 30.0


class SlowStart:
    """Bounds the unconfirmed requests by `max_unconfirmed`. A cold start lasts until the first `restart`."""

    __slots__ = (
        "_in_order",
        "_later",
        "_policy",
        "_widens_at_s",
        "is_cold",
        "max_unconfirmed",
        "refusal_delay_s",
        "timeout_s",
        "unconfirmed",
    )

    def __init__(self, policy: GatePolicy) -> None:
        self._policy = policy
        self.refusal_delay_s = 0.0
        """The usual time from a grant to its 429; 0 if none has come yet."""
        self.timeout_s = policy.acceptance_timeout_first_s
        """After this time without a response, a request counts as accepted."""
        self.max_unconfirmed: float = policy.initial_unconfirmed
        self.is_cold = True
        """Whether nothing was refused yet, nor the scope closed for another reason."""
        self._later = 0.0
        self._widens_at_s = -math.inf
        self.unconfirmed: dict[int, float] = {}
        """From when the timeout of each unconfirmed grant counts, by serial number. `Limit.grant` adds to it.

        A dict whose front entries were deleted scans their slots to find its first entry. Here such slots are
        few: `max_in_flight` bounds them."""
        self._in_order = True  # whether the instants in `unconfirmed` rise

    def has_room(self, now: float) -> bool:
        """Returns whether one more request may be unconfirmed."""
        if len(self.unconfirmed) + 1 <= self.max_unconfirmed:
            return True
        if self.is_cold:
            self.widen(now)
        return len(self.unconfirmed) + 1 <= self.max_unconfirmed

    def accepted(self, serial: int, now: float) -> None:
        """Notes that a request was accepted. A request that is not unconfirmed changes nothing."""
        if self.unconfirmed.pop(serial, None) is None:
            return
        if not self.is_cold:
            self.max_unconfirmed += not self._policy.is_share
            return
        self.widen(now)
        self.max_unconfirmed += _COLD_GROWTH
        self._later += 1 - _COLD_GROWTH

    def widen(self, now: float) -> None:
        """Adds the room that accepted requests make later, once a second."""
        if now >= self._widens_at_s:
            self.max_unconfirmed += self._later
            self._later = 0.0
            self._widens_at_s = now + _LATER_S

    def discard(self, serial: int) -> bool:
        """Forgets a request that was refused or ended without a response; False if it was not unconfirmed."""
        return self.unconfirmed.pop(serial, None) is not None

    def note_refusal_delay(self, delay_s: float) -> None:
        """Notes how long a 429 took, and sets the timeout to twice the usual time."""
        # Rises at once, falls slowly: too long a timeout costs a moment, too short a timeout costs refusals.
        usual_s = self.refusal_delay_s = max(delay_s, 0.8 * self.refusal_delay_s + 0.2 * delay_s)
        if usual_s:
            self.timeout_s = min(max(2 * usual_s, _MIN_TIMEOUT_S), _MAX_TIMEOUT_S)

    def accept_by_timeout(self, now: float) -> list[int]:
        """Accepts the requests whose timeout is over. Returns their serial numbers."""
        timeout_s = self.timeout_s
        overdue = []
        for serial, granted_s in self.unconfirmed.items():
            if granted_s + timeout_s <= now:
                overdue.append(serial)
            elif self._in_order:
                break
        for serial in overdue:
            self.accepted(serial, now)
        return overdue

    def next_timeout_at_s(self) -> float:
        """Returns when the next unconfirmed request is accepted by timeout; inf if there is none."""
        instants_s = self.unconfirmed.values()
        # An iterator costs less than `min`, and a gate without a fleet needs no more.
        first_s = next(iter(instants_s), math.inf) if self._in_order else min(instants_s, default=math.inf)
        return first_s + self.timeout_s

    def postpone_timeout(self, serial: int, wait_s: float) -> None:
        """Accepts an unconfirmed request by timeout so much later."""
        self.unconfirmed[serial] += wait_s
        self._in_order = False

    def restart(self, max_unconfirmed: float) -> None:
        """Forgets all unconfirmed requests and starts with a new bound."""
        self.max_unconfirmed = 1 if self._policy.is_share else max_unconfirmed
        self.is_cold = False
        self.unconfirmed.clear()
        self._in_order = True
