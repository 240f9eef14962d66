"""The grants of one replica, which it tells each new leader.

Each entry has the epoch of the latest leader that knows it, or 0 if none does. A leader is not told again what it
knows. A request that the upstream refused, or that was never sent, is not in the log.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Final

MAX_SCOPES: Final = 512
_MAX_GRANTS: Final = 1000  # of each scope; a limit that is larger is no concern of a second
_MAX_TOLD: Final = 10_000  # in about 400 KB
KEPT_S: Final = 120.0
"""How long grants of a scope are kept whose period is unknown; otherwise, they are kept for a period."""

NOBODY: Final = -1
"""No leader has this epoch."""

_Grants = deque[tuple[float, float, int, int]]


class GrantLog:
    """Logs (instant, cost, epoch, number) of each grant, by scope."""

    __slots__ = ("_added", "_grants")

    def __init__(self) -> None:
        self._added = 0
        self._grants: dict[str, _Grants] = {}

    def add(self, scope: str, granted_at_s: float, cost: float, epoch: int) -> int:
        """Logs a grant, and returns its number.

        Forgets the scope that was unused for the longest time, if there are too many.
        """
        grants = self._grants.pop(scope, None)
        if grants is None:
            grants = deque(maxlen=_MAX_GRANTS)
            if len(self._grants) >= MAX_SCOPES:
                del self._grants[next(iter(self._grants))]
        self._added += 1
        grants.append((granted_at_s, cost, epoch, self._added))
        self._grants[scope] = grants
        return self._added

    def entries(self, now: float, periods_s: Mapping[str, float]) -> list[tuple[str, float, float, int]]:
        """Returns (scope, age, cost, epoch) of the grants that may still count; of very many, the latest."""
        found = [
            (number, scope, now - at_s, cost, epoch)
            for scope, grants in self._grants.items()
            for at_s, cost, epoch, number in grants
            if at_s >= now - _kept_s(scope, periods_s)
        ]
        if len(found) > _MAX_TOLD:
            found = sorted(found)[-_MAX_TOLD:]
        return [entry[1:] for entry in found]

    def drop(self, last: int) -> None:
        """Forgets the grants up to this number."""
        for scope, grants in list(self._grants.items()):
            self._grants[scope] = deque((grant for grant in grants if grant[3] > last), _MAX_GRANTS)

    def correct_cost(self, scope: str, granted_at_s: float, cost: float, true_cost: float) -> None:
        """Corrects the cost of a grant, if it is logged."""
        grants = self._grants.get(scope, ())
        for at, (at_s, logged_cost, epoch, number) in enumerate(grants):
            if at_s == granted_at_s and logged_cost == cost:
                self._grants[scope][at] = (at_s, true_cost, epoch, number)
                break

    def prune(self, now: float, periods_s: Mapping[str, float]) -> None:
        """Forgets the grants that `ages` no longer tells. Call it now and then."""
        for scope, grants in list(self._grants.items()):
            since_s = now - _kept_s(scope, periods_s)
            while grants and grants[0][0] < since_s:
                grants.popleft()
            if not grants:
                del self._grants[scope]

    def told(self, epoch: int) -> None:
        """Notes that the leader of this epoch knows all grants so far."""
        for scope, grants in self._grants.items():
            self._grants[scope] = deque(((at_s, cost, epoch, n) for at_s, cost, _, n in grants), _MAX_GRANTS)

    def grants(self, scope: str) -> list[tuple[float, float, int]]:
        """Returns (instant, cost, epoch) of each grant of a scope, in the order of their ends."""
        return [(at_s, cost, epoch) for at_s, cost, epoch, _ in self._grants.get(scope, ())]

    def ages(
        self, now: float, epoch: int, periods_s: Mapping[str, float]
    ) -> dict[str, list[tuple[float, float, int]]]:
        """Returns (age, cost, number) of the grants that the leader of `epoch` does not know, by scope.

        Later grants have larger numbers. Of very many grants, it leaves out the earliest.
        """
        found: dict[str, list[tuple[float, float, int]]] = {}
        for scope, grants in self._grants.items():
            since_s = now - _kept_s(scope, periods_s)
            ages = [
                (now - at_s, cost, number)
                for at_s, cost, of_epoch, number in grants
                if at_s >= since_s and of_epoch != epoch
            ]
            if ages:
                found[scope] = ages
        if sum(map(len, found.values())) <= _MAX_TOLD:
            return found
        least = sorted(number for ages in found.values() for _, _, number in ages)[-_MAX_TOLD]
        latest = {scope: [age for age in ages if age[2] >= least] for scope, ages in found.items()}
        return {scope: ages for scope, ages in latest.items() if ages}


def _kept_s(scope: str, periods_s: Mapping[str, float]) -> float:
    period_s = periods_s.get(scope, math.inf)
    return KEPT_S if period_s == math.inf else period_s
