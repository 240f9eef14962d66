"""Which stored instants are old enough, although the system's clock may be set while a process runs."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

STEP_S: Final = 60.0
"""Instants may be kept longer by this time, which bounds what a slowly corrected clock costs."""


@dataclass(slots=True)
class _Offsets:
    """The system's clock minus the steady one, from an instant on: the lowest and the highest difference."""

    since_s: float
    lowest_s: float
    highest_s: float


@dataclass(slots=True)
class Aging:
    """Compares the system's clock, which gives the instants, with a steady clock, which nobody can set.

    Remembers the differences between the two clocks for the whole age. An instant is old only if it is old by each
    of them. So a clock that is set while the process runs makes nothing old too early. An instant is kept longer
    by at most the time by which the clock was set since.
    """

    age_s: float
    _started_s: float = field(default=math.nan, init=False)
    _offsets: deque[_Offsets] = field(default_factory=deque, init=False)

    def kept(self, wall_s: float, steady_s: float) -> tuple[float, float]:
        """Returns the first and the last instant that are not old. `wall_s` and `steady_s`: the two clocks now.

        An instant later than now is from before the clock was set back. It is old once the process has run for the
        whole age.
        """
        self._remember(wall_s - steady_s, steady_s)
        first_s = steady_s + min(offsets.lowest_s for offsets in self._offsets) - self.age_s
        if steady_s - self._started_s < self.age_s:
            return first_s, math.inf
        return first_s, steady_s + max(offsets.highest_s for offsets in self._offsets) + STEP_S

    def _remember(self, offset_s: float, steady_s: float) -> None:
        if not self._offsets:
            self._started_s = steady_s
            self._offsets.append(_Offsets(steady_s, offset_s, offset_s))
        last = self._offsets[-1]
        lowest_s, highest_s = min(last.lowest_s, offset_s), max(last.highest_s, offset_s)
        if highest_s - lowest_s > STEP_S:
            self._offsets.append(_Offsets(steady_s, offset_s, offset_s))
        else:
            last.lowest_s, last.highest_s = lowest_s, highest_s
        while len(self._offsets) > 1 and self._offsets[1].since_s <= steady_s - self.age_s:
            self._offsets.popleft()
