"""The scopes of a gate, bounded in number, and the timers that the gate keeps for them.

Callers choose model ids, so new scopes keep coming. Idle scopes with nothing to remember are dropped from time to
time. Once there are `GatePolicy.max_scopes`, further ones share a scope: `OTHERS`, or one for each row of `limits`.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.adaptive.limit_snapshot import restore_snapshot, take_snapshot
from nanonets_proxy.core.ratelimit.exact_state import apply_exact
from nanonets_proxy.core.ratelimit.fairness.fair_queue import FairQueue
from nanonets_proxy.core.ratelimit.fairness.places import Places
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scope_state import MAX_STALE, ScopeState, worth_keeping
from nanonets_proxy.core.ratelimit.scope_status import ScopeStatus, statuses
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot

OTHERS = "(others)"
"""The name of the scope that requests share once there are `GatePolicy.max_scopes`."""

MAX_CLOSED_SCOPES_SHOWN = 100
"""Metrics show at most this many closed scopes: callers choose model ids, so there may be many."""

_FORGET_EACH_S = 1.0


class ScopeRegistry:
    """Makes, finds and forgets scopes."""

    __slots__ = (
        "_forget_at_s",
        "_forget_at_scopes",
        "_jitter",
        "_made",
        "_places",
        "_policy",
        "_weights",
        "by_name",
    )

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float], places: Places) -> None:
        self.by_name: dict[str, ScopeState] = {}
        """The scopes. `add` makes those that are missing."""
        self._policy = policy
        self._jitter = jitter
        self._places = places
        self._weights = dict(policy.lane_weights)
        self._made = 0
        self._forget_at_scopes = min(MAX_STALE, policy.max_scopes)
        self._forget_at_s = -math.inf

    def __len__(self) -> int:
        """Returns the number of scopes."""
        return len(self.by_name)

    def __iter__(self) -> Iterator[ScopeState]:
        """Yields all scopes."""
        return iter(self.by_name.values())

    def add(self, name: str, now: float) -> ScopeState:
        """Returns a new scope of this name, or the one that it shares with others."""
        scopes = self.by_name
        if len(scopes) >= self._forget_at_scopes and now >= self._forget_at_s:
            self._forget_idle(now)
        static_limit = self._policy.static_limits.of(name)
        if len(scopes) >= self._policy.max_scopes:
            name = OTHERS if static_limit is None else f"{static_limit.scope} {OTHERS}"
            if (scope := scopes.get(name)) is not None:
                return scope
        self._made += 1
        limit = Limit(self._policy, self._jitter, static_limit)
        scope = scopes[name] = ScopeState(name, self._made, limit, FairQueue(self._weights))
        return scope

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy to all scopes."""
        self._policy = policy
        self._weights = dict(policy.lane_weights)
        for scope in self.by_name.values():
            scope.change_policy(policy, self._weights)

    def _forget_idle(self, now: float) -> None:
        keep = {scope.name: scope for scope in worth_keeping(self.by_name.values(), now)}
        self._places.forget_idle_scopes()
        self.by_name.clear()
        self.by_name.update(keep)
        # So that forgetting costs O(1) per new scope, or is rare.
        self._forget_at_scopes = min(2 * len(keep) + MAX_STALE, self._policy.max_scopes)
        self._forget_at_s = now + _FORGET_EACH_S if len(keep) >= self._forget_at_scopes else -math.inf

    def closed(self, now: float) -> Mapping[str, float]:
        """Returns when closed scopes open, by name: the `MAX_CLOSED_SCOPES_SHOWN` scopes that open last."""
        closed = [(s.opens_at_s, s.name) for s in self.by_name.values() if s.opens_at_s > now]
        return {name: opens_at_s for opens_at_s, name in heapq.nlargest(MAX_CLOSED_SCOPES_SHOWN, closed)}

    def closures(self, now: float) -> dict[str, float]:
        """Returns until when scopes are closed, for another gate. A used-up quota is only closed until its test."""
        return {
            scope.name: scope.limit.opens_at_s for scope in self.by_name.values() if scope.limit.opens_at_s > now
        }

    def reserve(self) -> float:
        """Returns the largest reserve of all scopes: requests of a quota that another client seems to share."""
        return max((scope.limit.estimate.reserve for scope in self.by_name.values()), default=0.0)

    def statuses(self, now: float, most: int) -> list[ScopeStatus]:
        """Returns the status of at most `most` scopes, the busiest first."""
        return statuses(self, now, most)

    def snapshots(self, now: float) -> list[ScopeSnapshot]:
        """Returns the limits as values that outlive the process."""
        snapshots = (take_snapshot(scope.limit, scope.name, now) for scope in self.by_name.values())
        return [snapshot for snapshot in snapshots if snapshot is not None]

    def restore_exact(self, document: Mapping[str, Any], now: float) -> bool:
        """Restores the document of `take_exact`, or nothing. Returns False if the document is of another release.

        Must come before the first ticket.
        """
        try:
            for name, part in islice(document.items(), self._policy.max_scopes):
                scope = self.add(name, now)
                apply_exact(scope, part)
                scope.change_policy(self._policy, self._weights)
        except ValueError:
            self.by_name.clear()
            return False
        return True

    def restore(self, snapshots: Iterable[ScopeSnapshot], now: float, away_s: float) -> None:
        """Restores snapshots that were taken `away_s` ago. Must come before the first ticket.

        Scopes that `restore_exact` has restored stay as they are.
        """
        for snapshot in islice(snapshots, self._policy.max_scopes):
            if snapshot.scope in self.by_name:
                continue
            scope = self.add(snapshot.scope, now)
            restore_snapshot(scope.limit, snapshot, now, away_s)
            scope.reported = scope.limit.estimate.belief


class ScopeTimers:
    """A heap of the scopes' timers. A timer that a scope no longer has stays as a stale entry for a while."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, ScopeState]] = []

    def __len__(self) -> int:
        """Returns the number of entries, stale ones included."""
        return len(self._entries)

    def pop_due(self, now: float) -> Iterator[ScopeState]:
        """Yields the scopes whose timers are due, and ends these timers."""
        entries = self._entries
        while entries and entries[0][0] <= now:
            timer_at_s, _, scope = heapq.heappop(entries)
            if timer_at_s == scope.timer_at_s:
                scope.timer_at_s = math.inf
                yield scope

    def set(self, scope: ScopeState, at_s: float) -> None:
        """Sets the timer of a scope; inf: none."""
        if at_s != scope.timer_at_s:
            scope.timer_at_s = at_s
            if at_s < math.inf:
                heapq.heappush(self._entries, (at_s, scope.number, scope))

    def next_s(self, scopes: int) -> float | None:
        """Returns when the next timer is due; None if there is none. `scopes` is the number of scopes."""
        entries = self._entries
        if len(entries) > 2 * scopes + MAX_STALE:
            entries[:] = [entry for entry in entries if entry[0] == entry[2].timer_at_s]
            heapq.heapify(entries)
        while entries and entries[0][0] != entries[0][2].timer_at_s:
            heapq.heappop(entries)
        return entries[0][0] if entries else None
