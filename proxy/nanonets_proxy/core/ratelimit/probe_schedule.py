"""When to ask for more than was proven, and by how much.

Asking costs a refusal if the answer is no. After each no the pause doubles, counted in periods and in requests;
once more has proved good, the next attempt comes soon and is bolder.
"""

import math

from nanonets_proxy.core.ratelimit.sliding_window import Window

_LONGEST_PAUSE = (8.0, 30.0)  # periods, from short ones to those of a minute: two refusals an hour
_GRANTS_PER_PERIOD = 16  # where a period is one or two requests, a refusal has to be worth more of them
_GRANTS_TO_BEAR = 8
_STEP = 0.8
_FINEST = 0.125
_BOLDEST = 2.0
_NEAR = 1.05  # of what was refused: there the search ends, and begins anew in fine steps


class ProbeSchedule:
    """The schedule of one kind of attempt. The window counts the grants."""

    __slots__ = (
        "_boldness",
        "_borne_from",
        "_due_from",
        "_too_short_s",
        "_window",
        "attempts",
        "due_at_s",
        "pause",
    )

    def __init__(self, window: Window, first_at_s: float = 0.0) -> None:
        self._window = window
        self.attempts = 0
        self.pause = 1.0
        self.due_at_s = first_at_s
        self._due_from = 0.0  # grants
        self._borne_from = 0  # grants
        self._boldness = 1.0
        self._too_short_s = 0.0

    def shorter_s(self, period_s: float) -> float:
        """To what a period is to be shortened: not below half the way to what was refused."""
        if self._too_short_s * _NEAR < period_s:
            return max(period_s * math.pow(_STEP, self._boldness), math.sqrt(self._too_short_s * period_s))
        return period_s * math.pow(_STEP, _FINEST)

    def too_short(self, period_s: float) -> None:
        """One as short as this was refused."""
        self._too_short_s = period_s

    @property
    def borne(self) -> bool:
        """Whether enough requests have gone since the last raise to tell."""
        return self._window.granted >= self._borne_from

    def raised(self) -> None:
        self._borne_from = self._window.granted + _GRANTS_TO_BEAR

    def due(self, now: float) -> bool:
        return now >= self.due_at_s and self._window.granted >= self._due_from

    def failed(self, now: float, period_s: float) -> None:
        self._boldness = max(_FINEST, self._boldness / 2)
        self._wait(now, period_s)
        least, most = _LONGEST_PAUSE
        self.pause = min(2 * self.pause, max(least, min(period_s / 2, most)))

    def varied(self, now: float, period_s: float) -> None:
        """More passed in one period than in the next: someone else takes a changing share. Ask again soon."""
        self._boldness = max(_FINEST, self._boldness / 2)
        self.pause = max(1.0, self.pause / 2)
        self._wait(now, period_s)

    def proved(self, now: float, period_s: float) -> None:
        """What had been asked for held for a period."""
        self._boldness = min(_BOLDEST, 2 * self._boldness)
        self.pause = max(1.0, self.pause / 2)
        self.due_at_s = now + period_s
        self._due_from = 0.0

    def soon(self, now: float, period_s: float) -> None:
        """The limit has changed: what was refused before says nothing now."""
        self.pause = 1.0
        self._too_short_s = 0.0
        self.due_at_s = now + period_s
        self._due_from = 0.0

    def _wait(self, now: float, period_s: float) -> None:
        self.attempts += 1
        self.due_at_s = now + self.pause * period_s
        self._due_from = self._window.granted + min(self.pause, _LONGEST_PAUSE[0]) * _GRANTS_PER_PERIOD
