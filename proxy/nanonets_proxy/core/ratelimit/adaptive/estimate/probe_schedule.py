"""When to send the next limit probe, and how far it may go.

A limit probe asks for more than the estimate allows, at the risk of a refusal. Each refusal doubles the pause
before the next probe, counted in periods and in requests. After a raise that held, the next probe comes sooner and
takes a larger step.
"""

import math

from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow

SMALL_COUNT = 5
"""A window with a smaller count is probed by a shorter period: one more request would be a large step."""

LONG_S = 10.0
"""A longer period is halved only if a burst met the limit: a refused probe would cost too much."""

_MAX_PAUSE_PERIODS = (8.0, 30.0)  # for short periods, and for periods of a minute: two refusals an hour
_GRANTS_PER_PERIOD = 16  # for each of its periods, a pause lasts this many requests, so that few are refused
_GRANTS_AFTER_RAISE = 8
_PERIOD_FACTOR = 0.8
_SEARCH_FACTOR = 0.5
_MIN_STEP_SIZE = 0.125
_MAX_STEP_SIZE = 2.0
_NEAR_REFUSED = 1.05  # times the refused period: from there on, the search takes only the smallest steps


class ProbeSchedule:
    """The schedule of one kind of limit probe. `window` counts the grants."""

    __slots__ = (
        "_due_from",
        "_enough_from",
        "_window",
        "due_at_s",
        "gained_little",
        "pause_periods",
        "refusals",
        "refused_period_s",
        "searching",
        "step_size",
    )

    def __init__(self, window: SlidingWindow, first_at_s: float = 0.0, *, searching: bool = False) -> None:
        self._window = window
        self.searching = searching
        """Whether the period is halved by each accepted probe, until the first one is refused."""
        self.refusals = 0
        self.pause_periods = 1.0
        self.due_at_s = first_at_s
        self.gained_little = False
        """Whether a probe since the latest refusal tested a period hardly shorter than the estimate."""
        self._due_from = 0.0  # number of grants
        self._enough_from = 0  # number of grants
        self.step_size = 1.0
        """The exponent of `_PERIOD_FACTOR` in the next shorter period."""
        self.refused_period_s = 0.0
        """A period this short was refused; 0: none was."""

    def shorter_period_s(self, period_s: float) -> float:
        """Returns the next shorter period to try: at least its geometric mean with the refused period."""
        if self.searching:
            return period_s * _SEARCH_FACTOR
        if self.refused_period_s * _NEAR_REFUSED < period_s:
            return max(
                period_s * math.pow(_PERIOD_FACTOR, self.step_size), math.sqrt(self.refused_period_s * period_s)
            )
        return period_s * math.pow(_PERIOD_FACTOR, _MIN_STEP_SIZE)

    def shown_period_s(self, period_s: float, probed_s: float) -> float:
        """Returns the period that an accepted probe showed. A late probe tests a longer one than planned."""
        planned_s = self.shorter_period_s(period_s)
        shown_s = max(planned_s, probed_s)
        self.gained_little = shown_s > math.sqrt(planned_s * period_s)
        return shown_s

    def period_refused(self, period_s: float) -> None:
        """Notes that a period this short was refused."""
        self.refused_period_s = period_s

    @property
    def enough_grants(self) -> bool:
        """Whether enough requests were granted since the last raise to tell whether it holds."""
        return self._window.granted >= self._enough_from

    def raised(self) -> None:
        """Notes that a probe was accepted and the estimate raised."""
        self._enough_from = self._window.granted + _GRANTS_AFTER_RAISE

    def due(self, now: float) -> bool:
        """Returns whether the pause is over, in seconds and in requests."""
        return now >= self.due_at_s and self._window.granted >= self._due_from

    def delay(self, until_s: float) -> None:
        """Delays the next probe: a refused one may cost much."""
        self.due_at_s = max(self.due_at_s, until_s)

    def refused(self, now: float, period_s: float) -> None:
        """Notes a refused probe: doubles the pause and halves the step."""
        self.searching = False
        self.step_size = max(_MIN_STEP_SIZE, self.step_size / 2)
        self._wait(now, period_s)
        least, most = _MAX_PAUSE_PERIODS
        self.pause_periods = min(2 * self.pause_periods, max(least, min(period_s / 2, most)))

    def quota_varied(self, now: float, period_s: float) -> None:
        """Notes that a period admitted fewer requests than another one: halves the pause, down to none.

        The next period, which begins now, may admit more again.
        """
        self.gained_little = False
        self.refusals += 1
        self.step_size = max(_MIN_STEP_SIZE, self.step_size / 2)
        self.pause_periods = max(1.0, self.pause_periods / 2)
        self.due_at_s = now + (self.pause_periods - 1) * period_s
        self._due_from = 0.0

    def raise_held(self, now: float, period_s: float) -> None:
        """Notes that the raised estimate held for a period: halves the pause and doubles the step."""
        self.step_size = min(_MAX_STEP_SIZE, 2 * self.step_size)
        self.pause_periods = max(1.0, self.pause_periods / 2)
        self.due_at_s = now + period_s
        self._due_from = 0.0

    def limit_changed(self, next_at_s: float) -> None:
        """Forgets earlier refusals: the limit has changed, so they say nothing about it."""
        self.pause_periods = 1.0
        self.refused_period_s = 0.0
        self.due_at_s = next_at_s
        self._due_from = 0.0

    def restore(
        self, pause_periods: float, due_at_s: float, refusals: int, step_size: float, refused_period_s: float
    ) -> None:
        """Continues the schedule of another process."""
        self.pause_periods = pause_periods
        self.due_at_s = due_at_s
        self.refusals = refusals
        self.step_size = max(_MIN_STEP_SIZE, min(_MAX_STEP_SIZE, step_size))
        self.refused_period_s = refused_period_s

    def _wait(self, now: float, period_s: float) -> None:
        self.refusals += 1
        self.gained_little = False
        self.due_at_s = now + self.pause_periods * period_s
        self._due_from = self._window.granted + min(self.pause_periods, _MAX_PAUSE_PERIODS[0]) * _GRANTS_PER_PERIOD
