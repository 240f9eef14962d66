"""The likely length of a period, from the hint and from the usual lengths of periods.

Periods are almost always round: a second, ten seconds, a minute, an hour. Hints are mostly in whole seconds,
rounded up: they say only that a period ends within the second before. A round length within that second is the best
estimate. If it is too short, the first request of the next period is refused, and its hint corrects the estimate.
"""

import math
from collections.abc import Iterator

_USUAL_S = (
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    900.0,
    1800.0,
    3600.0,
    21_600.0,
    43_200.0,
    86_400.0,
)
_TRIED_S = tuple(sorted({*_USUAL_S, 3.0, 20.0} - {15.0}))
"""After a burst without hints, the lengths to try, one after the other. The time between two tries never falls,
because an upstream may restart its period at each refusal. Then only a pause as long as the period succeeds.
Without the try after 3 s, a period of a little more than 2 s would be taken for one of 5 s."""

_CHEAP_S, _JUST_BEFORE_S = 2.0, 0.5  # half a second covers the round trip and the jitter of the earlier tries
_TOLERANCE = 0.01
"""An exact hint is off by at most this share of the period."""
_JITTER_S = 0.05  # the travel time of the first request of a period may differ by this from the refused one's


def rounding_s(hint_s: float) -> float:
    """Returns by how much a hint may exceed the true wait."""
    return 0.0 if hint_s % 1 else 1.0


def likely_period_s(longest_s: float, above_s: float, rounded_by_s: float) -> float:
    """Returns the likely length: about `longest_s` at most, and more than `above_s`.

    `rounded_by_s` is the possible excess of `longest_s` over the true length.
    """
    above_s = max(above_s, longest_s - (rounded_by_s or _TOLERANCE * longest_s))
    most_s = (1 + _TOLERANCE) * longest_s
    usual_s = max((period_s for period_s in _USUAL_S if above_s < period_s <= most_s), default=0.0)
    if usual_s:
        return usual_s
    whole_s = int(min(most_s, longest_s + _JITTER_S))
    if rounded_by_s and whole_s > above_s:
        return float(whole_s)
    return longest_s


def usual_periods_s(above_s: float) -> Iterator[float]:
    """Yields the usual periods that are longer than `above_s`, the shortest first."""
    return (period_s for period_s in _USUAL_S if period_s > above_s)


def is_usual(period_s: float) -> bool:
    """Returns whether periods often have this length."""
    return period_s in _USUAL_S


def length_to_try_s(elapsed_s: float, *, of_burst: bool) -> float:
    """Returns how long to wait for the next end of a period that began this long ago; inf if there is none."""
    lengths_s = _TRIED_S if of_burst else _USUAL_S
    length_s = next((tried_s for tried_s in lengths_s if tried_s > elapsed_s + 0.02), math.inf) - elapsed_s
    # A refusal may have restarted the period. Then the wait must not end just before a usual length.
    least_s = next((tried_s for tried_s in lengths_s if tried_s > length_s), math.inf)
    return least_s if length_s > _CHEAP_S and least_s <= length_s + _JUST_BEFORE_S else length_s
