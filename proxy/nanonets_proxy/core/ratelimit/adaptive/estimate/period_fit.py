"""Which usual period explains all refusals so far.

A single refusal does not tell the period: its hint names the end of a period, and not the length. Without a hint,
the end is between the last refused and the first accepted probe. Several refusals do tell it. With the true length,
each period admitted the same number of requests:

- In a fixed window, the period began `period_s` before its end.
- In a sliding window, the oldest request that counts was granted `period_s` before that end.

So the count is the number of requests from then on, in both cases. An uncertain end leaves a range for it.

Requests that the proxy paces itself can have the same rate in each period, whatever the true limit. So a length
also needs one of these signs:

- A request was granted when each of the periods would have begun.
- The ends of the periods are whole lengths apart, as with windows on the clock.

An uncertain end can hide a short period: its range of counts stays too wide to be sure of it, while a longer period
fits by chance. So the rule of the faster limit decides: a longer period is taken only if no shorter one is possible
that admits more requests per second, and no possible estimate is left for one that admits clearly less. Too fast a
limit costs a refusal, which corrects it. Too slow a limit makes callers wait for minutes.

If the first refusals of all come without hints, they leave several periods, and the estimate comes from a few
requests. The limit admitted the requests before them. So the possible period that admitted the most per second
replaces an estimate that is clearly slower. Later an estimate rests on more than the refusals of one closure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import usual_periods_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow

_MOST_REFUSALS: Final = 16  # the fit is for the first refusals: a limit may change later
_MAX_RANGE: Final = 1.5  # times the least count: a wider range of counts says too little
_SAME: Final = 0.1  # periods that differ by less are the same
_CLEARLY: Final = 1.25  # times the rate
_CERTAIN: Final = 2.0  # a period this many times as long as the uncertainty of its end can show whole lengths


@dataclass(frozen=True, slots=True)
class PeriodEnd:
    """What a refusal tells about the end of its period. Instants are grants, so travel times cancel out."""

    refused_s: float
    """The grant of the first refused request."""
    earliest_s: float
    latest_s: float


class _Begin(NamedTuple):
    """The range of instants at which a period began. The difference of travel times widens it."""

    after_s: float
    latest_s: float
    earliest_s: float

    @classmethod
    def of(cls, period_s: float, end: PeriodEnd, tolerance_s: float) -> Self:
        """Returns the range for a period of this length."""
        latest_s = end.latest_s - period_s
        return cls(latest_s + tolerance_s, latest_s - tolerance_s, end.earliest_s - period_s - tolerance_s)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A length that explains all refusals so far."""

    least: float
    """The least and the largest count."""
    largest: float
    is_anchored: bool
    """Whether a request was granted when each of the periods would have begun."""
    earliest_s: float
    """When the latest period began, as far as it is whole lengths after each earlier one. Empty if it cannot be."""
    latest_s: float

    def after(self, period_s: float, begin: _Begin, units: Mapping[float, float], cost: float) -> Self | None:
        """Returns what remains possible after one more refusal, with the units granted since each instant.

        The refused request did not fit. So if it costs more than one unit, some units may have remained.
        """
        least = max(self.least, units[begin.latest_s])
        largest = min(self.largest, units[begin.earliest_s] + cost - 1)
        if least > largest:
            return None
        moved_s = 0.0
        if self.latest_s < math.inf:
            middle_s = (begin.earliest_s + begin.after_s - self.earliest_s - self.latest_s) / 2
            moved_s = round(middle_s / period_s) * period_s
        return replace(
            self,
            least=least,
            largest=largest,
            is_anchored=self.is_anchored and units[begin.earliest_s] > units[begin.after_s],
            earliest_s=max(begin.earliest_s, self.earliest_s + moved_s),
            latest_s=min(begin.after_s, self.latest_s + moved_s),
        )


_ANY: Final = Candidate(1.0, math.inf, is_anchored=True, earliest_s=-math.inf, latest_s=math.inf)


class PeriodFit:
    """Keeps the usual periods that explain all refusals so far."""

    __slots__ = ("_candidates", "_may_end_s", "_noted", "_uncertain_s")

    def __init__(self) -> None:
        self._noted = 0
        self._may_end_s = -math.inf  # when the period of the latest refusal may have ended, at the earliest
        self._uncertain_s = 0.0
        self._candidates: dict[float, Candidate] = {}

    def stop(self) -> None:
        """Finds nothing from now on: some refusals do not concern the limit."""
        self._noted = _MOST_REFUSALS
        self._candidates = {}

    def note(
        self,
        end: PeriodEnd,
        window: SlidingWindow,
        tolerance_s: float,
        granted_by_s: float = math.inf,
        *,
        proven: float = 0.0,
    ) -> tuple[float, float] | None:
        """Notes a refusal, and counts what was granted by `granted_by_s`. Travel times differ by `tolerance_s`.

        Returns the count and the period that should replace the estimate of the window; None: it stays. It stays in
        any case if at least the `proven` part of its count was granted in its period before this refusal.
        """
        first = not self._noted
        if self._noted == _MOST_REFUSALS:
            return None
        if not first and not window.units_since((self._may_end_s,), granted_by_s)[0]:
            return None  # nothing was granted since the period may have ended, so both refusals belong to it
        self._noted += 1
        # Requests that were granted a moment after the refused one may have arrived before it.
        self._may_end_s = max(end.earliest_s - tolerance_s, end.refused_s + tolerance_s)
        self._uncertain_s = max(self._uncertain_s, end.latest_s - end.earliest_s)
        begins = {
            period_s: _Begin.of(period_s, end, tolerance_s)
            for period_s in usual_periods_s(end.earliest_s - end.refused_s)
            if first or period_s in self._candidates
        }
        instants_s = sorted({at_s for begin in begins.values() for at_s in begin}, reverse=True)
        units = dict(zip(instants_s, window.units_since(instants_s, granted_by_s), strict=True))
        candidates = {}
        for period_s, begin in begins.items():
            found = self._candidates.get(period_s, _ANY).after(period_s, begin, units, window.refused_cost)
            if found is not None:
                candidates[period_s] = found
        self._candidates = candidates
        if first:
            return None
        begin = _Begin.of(window.period_s, end, tolerance_s)
        least, most = window.units_since((begin.latest_s, begin.earliest_s), granted_by_s)
        if proven and least <= window.count and proven <= most + window.refused_cost - 1:
            return None
        return self._found(window.period_s)

    def fastest(self, window: SlidingWindow) -> tuple[float, float] | None:
        """Returns the possible limit that admits the most, if that is clearly more than the estimate admits."""
        limits = ((candidate.largest, period_s) for period_s, candidate in self._candidates.items())
        fastest = max((limit for limit in limits if limit[0] >= SMALL_COUNT), key=_rate, default=None)
        if fastest is None:
            return None
        return fastest if _rate(fastest) * window.period_s > _CLEARLY * window.count else None

    def _found(self, present_s: float) -> tuple[float, float] | None:
        fastest: tuple[float, float] | None = None  # of the shorter periods
        for period_s, candidate in self._candidates.items():
            if abs(period_s - present_s) <= _SAME * period_s:
                return None  # the present estimate may be true, and longer ones have more ways to fit
            is_aligned = candidate.earliest_s <= candidate.latest_s and period_s > _CERTAIN * self._uncertain_s
            if candidate.largest < SMALL_COUNT or not (candidate.is_anchored or is_aligned):
                continue
            if candidate.least >= SMALL_COUNT and candidate.largest <= _MAX_RANGE * candidate.least:
                found = candidate.least, period_s
                found = found if fastest is None else max(found, fastest, key=_rate)
                return None if self._present_rate(present_s) > _CLEARLY * _rate(found) else found
            shorter = candidate.largest, period_s
            fastest = shorter if fastest is None else max(fastest, shorter, key=_rate)
        return None

    def _present_rate(self, present_s: float) -> float:
        """Returns how many requests per second the present period admits, if it remains possible; otherwise 0."""
        same = (limit for limit in self._candidates.items() if abs(limit[0] - present_s) <= _SAME * limit[0])
        return next((candidate.largest / period_s for period_s, candidate in same), 0.0)


def _rate(limit: tuple[float, float]) -> float:
    count, period_s = limit
    return count / period_s
