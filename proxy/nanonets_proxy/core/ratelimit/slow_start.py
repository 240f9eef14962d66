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

    __slots__ = ("_cold", "_to_narrow", "out", "size")

    def __init__(self, size: float) -> None:
        self.size = size
        self._cold = True
        self._to_narrow = int(size)  # so many that pass still narrow it, each by a half
        self.out: dict[int, float] = {}
        """When those on trial were granted, by serial number and in order. Who goes on trial is put in.

        Of a dict whose first have gone, the first that is left costs a look at each of their places, until more
        are put in: a few times as many as there were at once, and those are bounded by the places in flight."""

    def passed(self, serial: int, now: float) -> None:
        """One was answered well. It need not be on trial."""
        granted_s = self.out.pop(serial, None)
        if granted_s is None:
            return
        took_s = now - granted_s if self._cold else _COLD_S
        if took_s < _LEAST_S:
            self.size += _LEAST_GROWTH
        elif took_s < _COLD_S:
            self.size += _GROWTH * (took_s / _COLD_S)
        else:
            self.size += _GROWTH
        if self._to_narrow:
            self._to_narrow -= 1
            self.size -= 0.5

    def drop(self, serial: int) -> bool:
        """One ended without telling anything, or refused. False if it was not on trial."""
        return self.out.pop(serial, None) is not None

    def silent(self, now: float, patience_s: float) -> list[int]:
        """Ends the trial of those out for so long: silence is consent. Gives their serial numbers."""
        silent = []
        for serial, granted_s in self.out.items():
            if granted_s + patience_s > now:
                break
            silent.append(serial)
        for serial in silent:
            self.passed(serial, now)
        return silent

    def next_silent_s(self, patience_s: float) -> float:
        """When the oldest on trial will be silent; inf if none is."""
        return next(iter(self.out.values()), math.inf) + patience_s

    def restart(self, size: float) -> None:
        self.size = size
        self._cold, self._to_narrow = False, 0
        self.out.clear()
