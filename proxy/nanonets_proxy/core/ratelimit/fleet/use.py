"""What the fleet has used of each limit, as leaders tell it: for replicas that must do without a leader.

A replica that is alone counts an equal part of this as its own. So all replicas together send what the limit still
admits, and not what is left of each one's share: one replica may have used more than its share, and another less.
"""

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from nanonets_proxy.core.ratelimit.fleet.grant_log import MAX_SCOPES

_PARTS: Final = 16
"""Of a period. All grants of one part count as if they were as young as the youngest of them."""

Grant = tuple[float, float]
"""The instant, or the age in seconds, and the units."""


def summarize(ages: Iterable[Grant], period_s: float) -> list[Grant]:
    """Returns the age and the units of at most 16 groups of grants of the last period, the oldest first."""
    part_s = period_s / _PARTS
    recent = sorted((age for age in ages if age[0] < period_s), reverse=True)
    groups = (list(group) for _, group in groupby(recent, lambda grant: grant[0] // part_s))
    return [(group[-1][0], math.fsum(units for _, units in group)) for group in groups]


class FleetUse:
    """The latest that a leader told of each scope. Forgets the scope that was told first, if there are too many."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, float, list[Grant]]] = {}

    def __contains__(self, scope: str) -> bool:
        """Returns whether a leader has told anything of a scope."""
        return scope in self._told

    def note(self, scope: str, ages: Iterable[Grant], epoch: int, now: float) -> None:
        """Notes the grants of a scope that count now, as the leader of `epoch` knows them, the oldest first."""
        grants = [(now - age_s, units) for age_s, units in ages]
        self._told.pop(scope, None)
        if len(self._told) >= MAX_SCOPES:
            del self._told[next(iter(self._told))]
        self._told[scope] = epoch, now, grants

    def part(
        self, scope: str, own: Iterable[tuple[float, float, int]], replicas: int, chance: float
    ) -> list[Grant]:
        """Returns the grants that count for one of `replicas`.

        These are its part of what the leader told, and those of its `own` grants (instant, cost, epoch) that the
        leader did not know then. The part is a whole number: `chance`, from 0 to 1, rounds it up or down so that
        the parts of all replicas add up on average.
        """
        epoch, told_at_s, grants = self._told[scope]
        total = math.fsum(units for _, units in grants)
        most = math.floor(total / replicas + chance)
        found: list[Grant] = []
        counted, units_so_far = 0, 0.0
        for number, (at_s, units) in enumerate(grants, start=1):
            units_so_far += units
            until = most if number == len(grants) else min(most, math.floor(most * units_so_far / total))
            if until > counted:
                found.append((at_s, until - counted))
                counted = until
        return found + [(at_s, cost) for at_s, cost, of_epoch in own if at_s > told_at_s or of_epoch != epoch]

    def has(self, scope: str, granted_at_s: float, epoch: int) -> bool:
        """Returns whether what the leader told has this grant of the leader of `epoch`."""
        told = self._told.get(scope)
        return told is not None and told[0] == epoch and granted_at_s <= told[1]
