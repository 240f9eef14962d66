"""Notices that the upstream refuses requests of one scope although the proxy keeps to what was accepted before.

Each closure shows how much of the quota the upstream accepted from the proxy: the units of the period that the
refusal ended. Only the proxy knows its own count, so nobody else can see that this part has become smaller. The
reasons differ in what follows:

- Another client takes a part of the quota: the accepted part differs from period to period.
- The upstream has lowered the limit: the accepted part settles.

| state | event | next state |
|---|---|---|
| any | a closure of another period | LEARNING |
| LEARNING | the third closure, if none of the last 16 differs much from another | USUAL |
| USUAL | a closure with much more than another of the last 16 | LEARNING |
| | a closure with about as much as the least of them | USUAL |
| | a closure with clearly less | SHORT: reported as `SHORT` |
| SHORT | a closure with clearly more than the one before, or a later one with clearly less | LEARNING: `SHARED` |
| | the fourth closure with about as much | LEARNING: `LOWERED` |

The first closure after the short one may have clearly less: the limit may have been lowered in the middle of a
period. A closure is left out unless its period is known, has at least ten units, and began at a known instant. So
it must have a hint.
"""

import enum
import math
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import rounding_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow

_CLOSURES_TO_LEARN: Final = 3
_REMEMBERED: Final = 16
_SETTLED: Final = 4
# Less than that can come from the edges of periods, and from delays on the way.
_CLEARLY: Final = 0.1
_MIN_UNITS: Final = 2
_MAX_SPREAD: Final = 1.2  # of the usual closures: otherwise, the estimate is not the true limit
# Of a rounded hint, as a share of the period. With more, nobody knows when the period began.
_MAX_EXCESS: Final = 0.1
_MAX_TRAVEL: Final = 0.05
_SAME_TIME: Final = (0.9, 1.1)
_MAX_STRETCH: Final = 1.5
_FEW: Final = 10


class QuotaChange(enum.Enum):
    """What the accepted part of a quota shows."""

    SHORT = "short"
    SHARED = "shared"
    LOWERED = "lowered"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The units that the upstream accepted in the `seconds` that a refusal ended."""

    units: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.units / self.seconds


@dataclass(frozen=True, slots=True)
class QuotaFinding:
    """A change, with the least that was usual before it, and what was accepted since then."""

    change: QuotaChange
    usual: Accepted
    since: tuple[Accepted, ...]


class QuotaWatch:
    """The closures of one scope."""

    __slots__ = ("_granted_at_s", "_hint_s", "_since", "_usual")

    def __init__(self) -> None:
        self._usual: list[Accepted] = []
        self._since: list[Accepted] = []  # the short closure and the later ones; empty: there was none
        self._granted_at_s = 0.0
        self._hint_s: float | None = None

    def refused(self, granted_at_s: float, hint_s: float | None) -> None:
        """Notes the refusal that began a closure, with its hint."""
        self._granted_at_s, self._hint_s = granted_at_s, hint_s

    def closed(self, window: SlidingWindow, closed_at_s: float, travel_s: float) -> QuotaFinding | None:
        """Notes the end of a closure that began at `closed_at_s`. Returns what it shows, if it shows a change.

        Travel times to the upstream differ by `travel_s`.
        """
        accepted = self._accepted(window, closed_at_s, travel_s)
        return None if accepted is None else self.note(accepted)

    def _accepted(self, window: SlidingWindow, closed_at_s: float, travel_s: float) -> Accepted | None:
        if not 0 < window.period_s < math.inf:
            return None
        seconds, hint_s = self._seconds(window.period_s), self._hint_s
        if window.count < _FEW or hint_s is None:
            return None
        excess_s = rounding_s(hint_s)
        if excess_s > _MAX_EXCESS * seconds:
            return None
        ends_at_s = self._granted_at_s + max(0.0, hint_s - excess_s)
        # The requests of a burst may arrive before the one that began the period.
        since_s = ends_at_s - seconds - min(travel_s, _MAX_TRAVEL * seconds)
        (units,) = window.units_since((since_s,), closed_at_s)
        return Accepted(units, seconds) if units else None

    def _seconds(self, period_s: float) -> float:
        """Returns the period to count in: the usual one, if the estimate of the period has become a bit longer.

        Where the units of another client expire one after the other, the estimate takes them for a longer period.
        """
        if len(self._usual) < _CLOSURES_TO_LEARN:
            return period_s
        usual_s = self._usual[-1].seconds
        return usual_s if usual_s < period_s <= _MAX_STRETCH * usual_s else period_s

    def note(self, accepted: Accepted) -> QuotaFinding | None:
        """Notes a closure. Returns what it shows, if it shows a change."""
        if self._usual and not _SAME_TIME[0] <= accepted.seconds / self._usual[-1].seconds <= _SAME_TIME[1]:
            self._usual, self._since = [], []
        by_rate = sorted(self._usual, key=lambda known: known.rate)
        is_stable = len(by_rate) >= _CLOSURES_TO_LEARN and by_rate[-1].rate <= _MAX_SPREAD * by_rate[0].rate
        if not self._since and not (is_stable and _is_clearly_less(accepted, by_rate[0])):
            self._usual = [*self._usual[1 - _REMEMBERED :], accepted]
            return None
        usual = by_rate[0]
        self._since.append(accepted)
        change = self._change()
        if change is None:
            return None
        finding = QuotaFinding(change, usual, tuple(self._since))
        if change is not QuotaChange.SHORT:
            self._usual, self._since = [], []
        return finding

    def _change(self) -> QuotaChange | None:
        if len(self._since) == 1:
            return QuotaChange.SHORT
        before, last = self._since[-2:]
        is_first_after_short = not self._since[2:]
        if _is_clearly_less(before, last) or (not is_first_after_short and _is_clearly_less(last, before)):
            return QuotaChange.SHARED
        return QuotaChange.LOWERED if len(self._since) == _SETTLED else None


def _is_clearly_less(accepted: Accepted, other: Accepted) -> bool:
    expected = other.rate * accepted.seconds
    return expected - accepted.units >= max(_MIN_UNITS, _CLEARLY * expected)
