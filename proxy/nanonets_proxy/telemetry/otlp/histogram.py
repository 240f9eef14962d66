"""Base-2 exponential histograms of durations (OpenTelemetry, metrics data model, "ExponentialHistogram").

At scale s, bucket i has the values above 2**(i / 2**s), up to and including 2**((i + 1) / 2**s).
"""

from bisect import bisect_left
from math import frexp
from typing import Final, NamedTuple

_SCALE: Final = 5
_PER_OCTAVE: Final = 2**_SCALE
# The upper bounds of the buckets from 0.5 to 1, which the mantissas of `frexp` lie between.
_BOUNDS: Final = tuple(2.0 ** (number / _PER_OCTAVE - 1) for number in range(_PER_OCTAVE))
MOST_BUCKETS: Final = 160
"""As in OpenTelemetry's SDKs by default."""
_LEAST_S, _MOST_S = 1e-6, 1e6


class Buckets(NamedTuple):
    """The counts of the buckets from number `offset` on."""

    scale: int
    offset: int
    counts: list[int]


class DurationHistogram:
    """Counts durations in seconds. Its memory is bounded: durations from 1 µs to 11 days have 1,276 buckets."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def count(self, duration_s: float) -> None:
        """Counts a duration. Durations beyond the bounds count as the nearest bound."""
        if not _LEAST_S <= duration_s <= _MOST_S:
            duration_s = min(max(duration_s, _LEAST_S), _MOST_S)
        mantissa, exponent = frexp(duration_s)
        # The bounds belong to the octave that ends at 1, where the exponent is 0.
        index = _PER_OCTAVE * (exponent - 1) - 1 + bisect_left(_BOUNDS, mantissa)
        try:
            self._counts[index] += 1
        except KeyError:
            self._counts[index] = 1

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self._counts.values())

    def buckets(self) -> Buckets:
        """Returns the counts at the largest scale of at most `_SCALE` with at most `MOST_BUCKETS` buckets."""
        if not self._counts:
            return Buckets(_SCALE, 0, [])
        least, most, shift = min(self._counts), max(self._counts), 0
        while (most >> shift) - (least >> shift) >= MOST_BUCKETS:
            shift += 1  # each step joins two neighbours to one bucket of the next smaller scale
        offset = least >> shift
        counts = [0] * ((most >> shift) - offset + 1)
        for index, count in self._counts.items():
            counts[(index >> shift) - offset] += count
        return Buckets(_SCALE - shift, offset, counts)
