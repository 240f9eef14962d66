"""When to ask for more than was proven, and by how much.

Asking costs a refusal if the answer is no. After each no the pause doubles, counted in periods and in requests;
once more has proved good, the next attempt comes soon and is bolder.
"""

import math

from nanonets_proxy.core.ratelimit.adaptive.sliding_window import SlidingWindow

_MAX_PAUSE = (8.0, 30.0)  # periods, from short ones to those of a minute: two refusals an hour
_GRANTS_PER_PERIOD = 16  # where a period is one or two requests, a refusal has to be worth more of them
_GRANTS_AFTER_RAISE = 8
_PERIOD_FACTOR = 0.8
_MIN_STEP_SIZE = 0.125
_MAX_STEP_SIZE = 2.0
_NEAR = 1.05  # of what was refused: there the search ends, and begins anew in fine steps


class ProbeSchedule:
    """The schedule of one kind of attempt. The window counts the grants."""

    __slots__ = (
        "_due_from",
        "_enough_from",
        "_refused_period_s",
        "_step_size",
        "_window",
        "due_at_s",
        "pause_periods",
        "refusals",
    )

    def __init__(self, window: SlidingWindow, first_at_s: float = 0.0) -> None:
        self._window = window
        self.refusals = 0
        self.pause_periods = 1.0
        self.due_at_s = first_at_s
        self._due_from = 0.0  # grants
        self._enough_from = 0  # grants
        self._step_size = 1.0
        self._refused_period_s = 0.0

    def shorter_period_s(self, period_s: float) -> float:
        """To what a period is to be shortened: not below half the way to what was refused."""
        if self._refused_period_s * _NEAR < period_s:
            return max(
                period_s * math.pow(_PERIOD_FACTOR, self._step_size), math.sqrt(self._refused_period_s * period_s)
            )
        return period_s * math.pow(_PERIOD_FACTOR, _MIN_STEP_SIZE)

    def period_refused(self, period_s: float) -> None:
        """One as short as this was refused."""
        self._refused_period_s = period_s

    @property
    def enough_grants(self) -> bool:
        """Whether enough requests have gone since the last raise to tell."""
        return self._window.granted >= self._enough_from

    def raised(self) -> None:
        self._enough_from = self._window.granted + _GRANTS_AFTER_RAISE

    def due(self, now: float) -> bool:
        return now >= self.due_at_s and self._window.granted >= self._due_from

    def refused(self, now: float, period_s: float) -> None:
        self._step_size = max(_MIN_STEP_SIZE, self._step_size / 2)
        self._wait(now, period_s)
        least, most = _MAX_PAUSE
        self.pause_periods = min(2 * self.pause_periods, max(least, min(period_s / 2, most)))

    def quota_varies(self, now: float, period_s: float) -> None:
        """More passed in one period than in the next: someone else takes a changing share. Ask again soon."""
        self._step_size = max(_MIN_STEP_SIZE, self._step_size / 2)
        self.pause_periods = max(1.0, self.pause_periods / 2)
        self._wait(now, period_s)

    def raise_held(self, now: float, period_s: float) -> None:
        """What had been asked for held for a period."""
        self._step_size = min(_MAX_STEP_SIZE, 2 * self._step_size)
        self.pause_periods = max(1.0, self.pause_periods / 2)
        self.due_at_s = now + period_s
        self._due_from = 0.0

    def limit_changed(self, now: float, period_s: float) -> None:
        """The limit has changed: what was refused before says nothing now."""
        self.pause_periods = 1.0
        self._refused_period_s = 0.0
        self.due_at_s = now + period_s
        self._due_from = 0.0

    def _wait(self, now: float, period_s: float) -> None:
        self.refusals += 1
        self.due_at_s = now + self.pause_periods * period_s
        self._due_from = self._window.granted + min(self.pause_periods, _MAX_PAUSE[0]) * _GRANTS_PER_PERIOD
