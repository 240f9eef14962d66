"""Feeling the way: how many requests may be out whose fate nobody knows yet.

A request is *on trial* from its grant until it is answered or *silent*: a 429 would long have come. Each that
passes makes room for one and a half more, so that 1 becomes 2, 3, 5, 8, … within a few round trips.

Where nothing is known yet, about as many are refused at once as are on trial when the limit is met. So the first
to pass narrow the trial to half, and from then on it grows with time, by a half each second, not with round trips:
quick answers let enough through, however few are out. Thousands of them let all through: that is no limit's start.
"""

import math

_GROWTH = 0.5
_COLD_S = 1.0  # what passes sooner makes less room while nothing is known
_LEAST_S = 0.04  # however quick, it makes as much as after this
_LEAST_GROWTH = _GROWTH * _LEAST_S / _COLD_S


class SlowStart:
    """`size` bounds the requests on trial; until `restart` nothing is known."""

    __slots__ = ("_cold", "_to_narrow", "max_unconfirmed", "unconfirmed")

    def __init__(self, max_unconfirmed: float) -> None:
        self.max_unconfirmed = max_unconfirmed
        self._cold = True
        self._to_narrow = int(max_unconfirmed)  # so many that pass still narrow it, each by a half
        self.unconfirmed: dict[int, float] = {}
        """When those on trial were granted, by serial number and in order. Who goes on trial is put in.

        Of a dict whose first have gone, the first that is left costs a look at each of their places, until more
        are put in: a few times as many as there were at once, and those are bounded by the places in flight."""

    def accepted(self, serial: int, now: float) -> None:
        """One was answered well. It need not be on trial."""
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
        """One ended without telling anything, or refused. False if it was not on trial."""
        return self.unconfirmed.pop(serial, None) is not None

    def accepted_by_timeout(self, now: float, timeout_s: float) -> list[int]:
        """Ends the trial of those out for so long: silence is consent. Gives their serial numbers."""
        accepted_by_timeout = []
        for serial, granted_s in self.unconfirmed.items():
            if granted_s + timeout_s > now:
                break
            accepted_by_timeout.append(serial)
        for serial in accepted_by_timeout:
            self.accepted(serial, now)
        return accepted_by_timeout

    def next_timeout_s(self, timeout_s: float) -> float:
        """When the oldest on trial will be silent; inf if none is."""
        return next(iter(self.unconfirmed.values()), math.inf) + timeout_s

    def restart(self, max_unconfirmed: float) -> None:
        self.max_unconfirmed = max_unconfirmed
        self._cold, self._to_narrow = False, 0
        self.unconfirmed.clear()
