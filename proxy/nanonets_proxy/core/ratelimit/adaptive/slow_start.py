"""Slow start: how many unconfirmed requests may be in flight.

A request is *unconfirmed* from its grant until it is served, or until its acceptance timeout: by then a 429
would have come. Each accepted request makes room for one and a half others, so that 1 becomes 2, 3, 5, 8, …
within a few round trips.

A cold start, with nothing known about the limit, is more careful. When it meets the limit, about as many requests
are refused as are unconfirmed. So the first accepted requests halve the room. Each later one makes half a place for
each second that it took, at most half a place. Thousands of quick responses still lift the bound, since they show
that there is no limit.
"""

import math

_GROWTH = 0.5
_COLD_S = 1.0  # in a cold start, a quicker acceptance adds less room
_LEAST_S = 0.04  # acceptances quicker than this add as much as after this time
_LEAST_GROWTH = _GROWTH * _LEAST_S / _COLD_S


class SlowStart:
    """Bounds the unconfirmed requests by `max_unconfirmed`. A cold start lasts until the first `restart`."""

    __slots__ = ("_cold", "_to_narrow", "max_unconfirmed", "unconfirmed")

    def __init__(self, max_unconfirmed: float) -> None:
        self.max_unconfirmed = max_unconfirmed
        self._cold = True
        self._to_narrow = int(max_unconfirmed)  # how many of the next accepted requests take half a place away
        self.unconfirmed: dict[int, float] = {}
        """The instant of each unconfirmed grant, by serial number and in order. `Limit.grant` adds to it.

        A dict whose front entries were deleted scans their slots to find its first entry. Here such slots are
        few: `max_in_flight` bounds them."""

    def accepted(self, serial: int, now: float) -> None:
        """Notes that a request was accepted. A request that is not unconfirmed changes nothing."""
        granted_s = self.unconfirmed.pop(serial, None)
        if granted_s is None:
            return
        took_s = now - granted_s if self._cold else _COLD_S
        if took_s < _LEAST_S:
            self.max_unconfirmed += _LEAST_GROWTH
        elif took_s < _COLD_S:
            self.max_unconfirmed += _GROWTH * (took_s / _COLD_S)
        else:
            self.max_unconfirmed += _GROWTH
        if self._to_narrow:
            self._to_narrow -= 1
            self.max_unconfirmed -= 0.5

    def discard(self, serial: int) -> bool:
        """Forgets a request that was refused or ended without a response; False if it was not unconfirmed."""
        return self.unconfirmed.pop(serial, None) is not None

    def accept_by_timeout(self, now: float, timeout_s: float) -> list[int]:
        """Accepts the requests granted at least `timeout_s` ago. Returns their serial numbers."""
        overdue = []
        for serial, granted_s in self.unconfirmed.items():
            if granted_s + timeout_s > now:
                break
            overdue.append(serial)
        for serial in overdue:
            self.accepted(serial, now)
        return overdue

    def next_timeout_at_s(self, timeout_s: float) -> float:
        """Returns when the oldest unconfirmed request is accepted by timeout; inf if there is none."""
        return next(iter(self.unconfirmed.values()), math.inf) + timeout_s

    def restart(self, max_unconfirmed: float) -> None:
        """Forgets all unconfirmed requests and starts with a new bound."""
        self.max_unconfirmed = max_unconfirmed
        self._cold, self._to_narrow = False, 0
        self.unconfirmed.clear()
