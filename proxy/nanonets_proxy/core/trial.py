"""Feeling the way: how many requests may be out whose fate nobody knows yet.

A request is *on trial* from its grant until it is answered or *silent*: a 429 would long have come. Each that
passes makes room for one and a half more, so that 1 becomes 2, 3, 5, 8, … within a few round trips.
"""

import math
from collections import OrderedDict
from itertools import islice

_GROWTH = 0.5


class Trial:
    """`size` bounds the requests on trial."""

    __slots__ = ("_out", "size")

    def __init__(self, size: float) -> None:
        self.size = size
        self._out: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._out)

    @property
    def has_room(self) -> bool:
        return len(self._out) < int(self.size)

    def add(self, serial: int, now: float) -> None:
        self._out[serial] = now

    def passed(self, serial: int) -> bool:
        """One was answered well. False if it was not on trial."""
        if self._out.pop(serial, None) is None:
            return False
        self.size += _GROWTH
        return True

    def drop(self, serial: int) -> bool:
        """One ended without telling anything, or refused. False if it was not on trial."""
        return self._out.pop(serial, None) is not None

    def silent(self, now: float, patience_s: float) -> list[int]:
        """Ends the trial of those out for so long: silence is consent. Gives their serial numbers."""
        count = 0
        for granted_s in self._out.values():
            if granted_s + patience_s > now:
                break
            count += 1
        silent = list(islice(self._out, count))
        for serial in silent:
            self.passed(serial)
        return silent

    def next_silent_s(self, patience_s: float) -> float:
        """When the oldest on trial will be silent; inf if none is."""
        return next(iter(self._out.values()), math.inf) + patience_s

    def restart(self, size: float) -> None:
        self.size = size
        self._out.clear()
