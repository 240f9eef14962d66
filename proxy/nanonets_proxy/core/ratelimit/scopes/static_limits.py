"""Limits from the settings: `account 60/minute`, `v2:predict:* 20 pages/60s`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Self

_LIMIT = re.compile(
    r"\s*(?P<scope>\S+)\s+(?P<count>[0-9]{1,9})\s*(?P<unit>[a-z]+)?\s*/\s*(?P<size>[0-9]{1,9})?\s*(?P<period>[a-z]+)\s*"
)
REQUESTS, PAGES = "requests", "pages"
MAX_COUNT = 10**9
MAX_PERIOD_S = 3660 * 86_400.0
"""Ten years. A limit with a larger count or a longer period limits nothing that this program could see."""
_UNITS = {None: REQUESTS, "request": REQUESTS, "requests": REQUESTS, "page": PAGES, "pages": PAGES}
_UNITS_S = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


@dataclass(frozen=True, slots=True)
class StaticLimit:
    """At most `count` units of a matching scope within any `period_s`."""

    scope: str
    """A scope's name, in which * stands for any text."""
    count: int
    period_s: float
    unit: str = REQUESTS
    """`requests` or `pages`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `SCOPE COUNT [UNIT]/PERIOD`. Raises ValueError with a sentence for the user."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not of the form SCOPE COUNT/PERIOD, such as account 60/minute")
        if match["unit"] not in _UNITS:
            raise ValueError(f"{text!r}: the unit must be requests or pages")
        if match["period"] not in _UNITS_S:
            raise ValueError(f"{text!r}: the period must be in seconds, minutes, hours or days")
        count, periods = int(match["count"]), int(match["size"] or 1)
        if not count or not periods:
            raise ValueError(f"{text!r}: count and period must be at least 1")
        if periods * _UNITS_S[match["period"]] > MAX_PERIOD_S:
            raise ValueError(f"{text!r}: the period must be at most {MAX_PERIOD_S / 86_400:.0f} days")
        return cls(match["scope"], count, periods * _UNITS_S[match["period"]], _UNITS[match["unit"]])

    def __str__(self) -> str:
        unit = "" if self.unit == REQUESTS else f" {self.unit}"
        return f"{self.scope} {self.count}{unit}/{self.period_s:.0f}s"


@dataclass(frozen=True, slots=True)
class StaticLimits:
    """The limits in order of precedence: the first one that matches a scope applies."""

    rows: tuple[StaticLimit, ...] = ()
    named: Mapping[str, StaticLimit] = field(default_factory=dict)
    """The limits of single scopes, by name. They apply before `rows`, and there may be hundreds of them."""

    def of(self, scope: str) -> StaticLimit | None:
        """Returns the limit of a scope; None if no limit matches."""
        return self.named.get(scope) or next((row for row in self.rows if fnmatchcase(scope, row.scope)), None)
