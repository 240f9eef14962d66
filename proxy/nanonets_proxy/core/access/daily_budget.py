"""Limits the requests of each caller in a day (UTC). Counts are kept in memory: a restart clears them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from nanonets_proxy.core.access.caller_names import check_name_in_settings

_RULE: Final = re.compile(r"(?:(?P<caller>\S+):\s+)?(?P<count>[0-9]{1,12})", re.ASCII)
_DAY_S: Final = 86_400
# Callers may be addresses, so their number needs a bound: all further callers without a rule share one count.
MAX_CALLERS: Final = 10_000
_OTHERS: Final = ""


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """A caller's requests per day. If `caller` is None, for each caller without a rule of its own."""

    caller: str | None
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `5000` or `billing: 5000`. Raises ValueError with a sentence that says what is wrong."""
        match = _RULE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a daily budget: write 5000, or billing: 5000")
        caller = match["caller"]
        return cls(caller and check_name_in_settings(caller), int(match["count"]))

    def __str__(self) -> str:
        return str(self.count) if self.caller is None else f"{self.caller}: {self.count}"


class DailyBudget:
    """Counts each caller's requests of the current day."""

    def __init__(self, rules: Iterable[BudgetRule]) -> None:
        self._limits = {rule.caller: rule.count for rule in rules}
        self._day = -1
        self._used: dict[str, int] = {}

    def take(self, caller: str, wall_now_s: float) -> float | None:
        """Counts one request of `caller`. If its budget is used up, returns the seconds to the next day."""
        limit = self._limits.get(caller, self._limits.get(None))
        if limit is None:
            return None
        day = int(wall_now_s // _DAY_S)
        if day != self._day:
            self._day = day
            self._used.clear()
        is_named = caller in self._limits  # a caller with a rule never shares its count with invented names
        if not is_named and caller not in self._used and len(self._used) >= MAX_CALLERS:
            caller = _OTHERS
        used = self._used.get(caller, 0)
        if used >= limit:
            return (day + 1) * _DAY_S - wall_now_s
        self._used[caller] = used + 1
        return None
