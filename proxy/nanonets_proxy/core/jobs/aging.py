"""Which stored instants are old enough, although the system's clock may be set while a process runs."""

import math
from dataclasses import dataclass, field
from typing import Final

STEP_S: Final = 60.0
"""A larger difference between two clocks means that somebody has set one of them."""


@dataclass(slots=True)
class Aging:
    """Compares the system's clock, which gives the instants, with a steady clock, which nobody can set.

    After the system's clock was set, all earlier instants are wrong, and nothing is old until the steady clock has
    counted the whole age. Without that, a machine whose clock is wrong at its start would lose all results at once.
    """

    age_s: float
    _offset_s: float = field(default=math.nan, init=False)
    _unset_since_s: float = field(default=math.nan, init=False)
    _was_set: bool = field(default=False, init=False)

    def kept(self, wall_s: float, steady_s: float) -> tuple[float, float]:
        """Returns the first and the last instant that are not old. `wall_s` and `steady_s`: the two clocks now.

        An instant later than now is from before the clock was set back. It is old once the whole age has passed.
        """
        offset_s, before_s = wall_s - steady_s, self._offset_s
        self._offset_s = offset_s
        if math.isnan(before_s):
            self._unset_since_s = steady_s
        elif abs(offset_s - before_s) > STEP_S:
            self._unset_since_s, self._was_set = steady_s, True
        is_settled = steady_s - self._unset_since_s >= self.age_s
        first_s = wall_s - self.age_s if is_settled or not self._was_set else -math.inf
        return first_s, wall_s + STEP_S if is_settled else math.inf
