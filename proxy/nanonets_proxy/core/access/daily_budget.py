"""Limits the requests of each caller in a day (UTC).

With a usage ledger, the counts survive a restart. With `share`, all replicas of a fleet count together.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from nanonets_proxy.core.access.budget_rule import BudgetRule
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.usage.rollups import DAY_S, MAX_CALLERS, OTHER_CALLERS

_OTHERS: Final = OTHER_CALLERS
# A clock that jumps back finds its day again.
_MAX_DAYS: Final = 4


class DailyBudget:
    """Counts each caller's requests of a day. Beyond `MAX_CALLERS`, callers without a rule share one count."""

    def __init__(self, rules: Iterable[BudgetRule]) -> None:
        self._day = -1
        self._used: dict[str, int] = {}
        self._days: dict[int, dict[str, int]] = {}
        self._shared: SharedCounts | None = None
        self.change_rules(rules)

    def change_rules(self, rules: Iterable[BudgetRule]) -> None:
        """Applies other rules. The requests of the current day stay counted."""
        self._limits = {rule.caller: rule.count for rule in rules}

    def limit_of(self, caller: str) -> int | None:
        """Returns the caller's requests per day; None: it has no budget."""
        return self._limits.get(caller, self._limits.get(None))

    def restore(self, requests_by_day: Mapping[int, Mapping[str, int]]) -> None:
        """Takes over the counts of earlier requests, by day since 1970 and caller."""
        for day in sorted(requests_by_day)[-_MAX_DAYS:]:
            self._days[day] = dict(requests_by_day[day])

    def share(self, shared: SharedCounts) -> None:
        """Counts together with other replicas from now on. Call it after `restore`."""
        self._shared = shared
        for day, counts in self._days.items():
            for caller, count in counts.items():
                shared.restore(day, caller, count)

    @property
    def is_part(self) -> bool:
        """Whether each caller has only this replica's part of its budget: the other replicas cannot be asked."""
        return self._shared is not None and self._shared.is_alone

    def take(self, caller: str, wall_now_s: float) -> float | None:
        """Counts one request of `caller`. If its budget is used up, returns after how many seconds to try again."""
        limit = self.limit_of(caller)
        if limit is None:
            return None
        day = int(wall_now_s // DAY_S)
        if day != self._day:
            self._begin_day(day)
        caller = self._counted_as(caller)
        used, shared = self._used.get(caller, 0), self._shared
        if shared is not None and used >= shared.limit_here(day, caller, limit):
            return shared.again_in_s(day, caller, limit, wall_now_s)
        if shared is None and used >= limit:
            return (day + 1) * DAY_S - wall_now_s
        self._used[caller] = used + 1
        if shared is not None:
            shared.counted(day, caller, used + 1)
        return None

    def give_back(self, caller: str, taken_at_s: float) -> None:
        """Uncounts a request that `take` counted, because it was never sent."""
        day = int(taken_at_s // DAY_S)
        used = self._days.get(day, {})
        name = caller if caller in used else _OTHERS
        if used.get(name):
            used[name] -= 1
            if self._shared is not None:
                self._shared.counted(day, name, used[name])

    def _begin_day(self, day: int) -> None:
        self._day = day
        self._used = self._days.pop(day, {})
        self._days[day] = self._used  # as the last one
        if len(self._days) > _MAX_DAYS:
            del self._days[next(iter(self._days))]

    def _counted_as(self, caller: str) -> str:
        # A caller with a rule never shares its count with invented names.
        if caller in self._limits or caller in self._used or len(self._used) < MAX_CALLERS:
            return caller
        return _OTHERS
