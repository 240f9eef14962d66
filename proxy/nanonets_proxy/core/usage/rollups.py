"""Roll-ups: sums of attempts by period and series, so that no view has to read the attempts themselves.

Periods are whole hours since 1970 (UTC), so the machine's time zone and clock changes have no influence. Each
attempt is counted once at every level of `LEVELS_H`. A view then adds few large periods in the middle of its range,
and few small ones at both ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from nanonets_proxy.core.http.methods import USUAL_METHODS

HOUR_S: Final = 3600
DAY_H: Final = 24
DAY_S: Final = DAY_H * HOUR_S
EARLIEST_H: Final = 482_136
"""2025-01-01. An earlier hour comes from a clock that was not set yet, such as one that starts in 1970."""
LEVELS_H: Final = (1, 4, DAY_H, 96, 384, 1536)
"""The lengths of periods in hours. Each divides the next one."""

MAX_CALLER_CHARS: Final = 128
MAX_CALLERS: Final = 10_000
"""Callers counted by name in a day: callers may be addresses, or choose their names."""
OTHER_CALLERS: Final = "(others)"
OTHER_METHODS: Final = "other"

NO_RESPONSE: Final = "none"
UNFINISHED: Final = "unfinished"
"""The attempt was still running when the process ended."""
_OWN_CLASS: Final = frozenset({401, 403, 429})

Series = tuple[str, str, str, str, str]
"""What roll-ups distinguish: environment, caller, method, route, status."""
DIMENSIONS: Final = ("environment", "caller", "method", "route", "status")


def status_class(status: int) -> str:
    """Returns the class of a response's status. 401, 403 and 429 have their own; 0: no response."""
    if status in _OWN_CLASS:
        return str(status)
    return f"{status // 100}xx" if status else NO_RESPONSE


def known_method(method: str) -> str:
    """Returns the method, or `OTHER_METHODS` for an unusual one, since callers may invent methods."""
    return method if method in USUAL_METHODS else OTHER_METHODS


def cuts(series: Series) -> Iterator[tuple[int, Series]]:
    """Yields the series that an attempt counts in, each with its cut: 0 is the series itself.

    Cut n keeps only the environment and the n-th of `DIMENSIONS`, so that a view by one dimension adds few sums.
    """
    yield 0, series
    environment = series[0]
    for number, value in enumerate(series):
        kept = [environment, "", "", "", ""]
        kept[number] = value
        yield number + 1, (kept[0], kept[1], kept[2], kept[3], kept[4])


def cut_of(dimensions: Sequence[str]) -> int:
    """Returns the cut that has all sums of a view by these dimensions."""
    return DIMENSIONS.index(dimensions[0]) + 1 if len(dimensions) == 1 else 0


class CallerNames:
    """The callers' names of the current day, at most `MAX_CALLERS`; all further callers share one name."""

    def __init__(self) -> None:
        self._day = -1
        self._names: set[str] = set()

    def name(self, caller: str, at_s: int) -> str:
        """Returns the name to count `caller` under."""
        day = at_s // DAY_S
        if day != self._day:
            self._day = day
            self._names.clear()
        name = caller[:MAX_CALLER_CHARS]
        if name not in self._names:
            if len(self._names) >= MAX_CALLERS:
                return OTHER_CALLERS
            self._names.add(name)
        return name


class Counts(NamedTuple):
    """Sums of attempts."""

    attempts: int = 0
    requests: int = 0
    """The attempts that were the first of their request."""
    request_bytes: int = 0
    response_bytes: int = 0
    pages: int = 0
    """The pages of the attempts with a 2xx, in scopes whose limit is in pages."""

    def plus(self, other: "Counts") -> "Counts":
        """Returns the sums of both."""
        return Counts._make(map(int.__add__, self, other))


@dataclass(frozen=True, slots=True)
class Periods:
    """The periods number `first` to `last` - 1 of one level. Period n begins n * `hours` after 1970."""

    hours: int
    first: int
    last: int


def periods_within(since_h: int, until_h: int) -> Iterator[Periods]:
    """Yields the largest periods that together cover the hours from `since_h` to `until_h` - 1, each hour once."""
    first, last = since_h, until_h
    for hours, larger in pairwise(LEVELS_H):
        inner_first, inner_last = -(-first // larger) * larger, last // larger * larger
        if inner_first >= inner_last:
            break
        yield from _periods(hours, first, inner_first)
        yield from _periods(hours, inner_last, last)
        first, last = inner_first, inner_last
    else:
        hours = LEVELS_H[-1]
    yield from _periods(hours, first, last)


def _periods(hours: int, since_h: int, until_h: int) -> Iterator[Periods]:
    if since_h < until_h:
        yield Periods(hours, since_h // hours, until_h // hours)
