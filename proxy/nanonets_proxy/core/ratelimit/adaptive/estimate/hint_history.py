"""Whether the upstream's hints name the true end of a period, are always as long as the period, or mislead.

If the recovery probe is refused after the end of a hint, and its hint is the same again, hints of this length are
*refuted*: the upstream sends them whatever the rest of the period is. A hint of more than a second is also refuted
within the last second of the same hint, since a true one in whole seconds would say 1 s there.
"""

import math

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import is_usual
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow

_NAMES_FROM_S = 5.0  # a shorter hint is too often the rest of a period


class HintHistory:
    """Compares the hints of successive closures."""

    __slots__ = ("_end_s", "_length_s", "_refuted_s", "are_exact", "latest_s")

    def __init__(self) -> None:
        self.are_exact = False
        """Whether the hints name the true end of a period."""
        self._length_s = 0.0  # of the latest hint; 0 if there was none
        self.latest_s = 0.0
        """The length of the hint of the latest refusal; 0 if it had none."""
        self._refuted_s: float | None = None  # the length of the latest refuted hint
        self._end_s = -math.inf

    def compare(self, hint_s: float, *, after_previous: bool) -> bool:
        """Notes the hint of a refusal; 0 if it has none. Returns whether it refutes hints of this length.

        `after_previous` says whether a true hint could not be the same again when this request was sent.
        """
        refutes = after_previous and 0 < hint_s == self.latest_s and hint_s != self._refuted_s
        if refutes:
            self._refuted_s = hint_s
        self.latest_s = hint_s
        return refutes

    @property
    def last_was_given(self) -> bool:
        """Whether the latest refusal had a hint, even a refuted one."""
        return self.latest_s > 0

    def is_refuted(self, hint_s: float | None) -> bool:
        """Returns whether hints of this length tell neither a period nor its end."""
        return hint_s == self._refuted_s

    def names_period(self, hint_s: float) -> bool:
        """Returns whether a hint seems to be the length of each period, and not the rest of the present one.

        Many upstreams send the same hint each time. The rest of a longer period is seldom as long as a usual one.
        """
        is_same = self._length_s in (0.0, hint_s)
        return is_same and hint_s >= _NAMES_FROM_S and is_usual(hint_s)

    def note(self, closure: Closure, ends_at_s: float, window: SlidingWindow) -> bool:
        """Notes the hint of a closure. Returns whether the closure ends at a known end of a period.

        Hints are exact if their lengths differ while their ends are whole periods apart.
        """
        if not closure.hinted:
            return False
        at_period_end = False
        if self._length_s and SMALL_COUNT <= window.count < math.inf:
            apart_s = ends_at_s - self._end_s
            periods = round(apart_s / window.period_s)
            difference = abs(closure.closed_s - self._length_s) / window.period_s
            error = abs(apart_s / window.period_s - periods)
            # The second condition is for hints in whole seconds.
            if periods >= 1 and ((difference > 0.001 and error <= 0.02) or (difference > 0.1 and error <= 0.1)):
                self.are_exact = True
            at_period_end = self.are_exact and error <= 0.1
        self._length_s = closure.closed_s
        self._end_s = ends_at_s
        return at_period_end
