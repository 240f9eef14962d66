"""What operators see of a scope: for the metrics and the status page."""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.scope_state import ScopeState


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """One scope at one instant. None: not known."""

    name: str
    state: str
    """A value of `LimitState`: open, closed, probing or learned."""
    waiting: int
    in_flight: int
    opens_in_s: float
    """How long the scope stays closed; 0 if it is open."""
    quota_used_up: bool
    """Whether a quota is used up for long."""
    count: float | None
    """The learned limit: units in `period_s`. `proven` of them are proven."""
    period_s: float | None
    proven: float
    concurrency_limit: float | None
    reserve: float
    """The units of the limit that another client seems to use."""

    @classmethod
    def of(cls, scope: ScopeState, now: float) -> "ScopeStatus":
        """Returns the status of a scope at `now`."""
        belief, known = scope.limit.estimate.belief, scope.limit.estimate.known
        concurrency_limit = belief.concurrency_limit
        return cls(
            name=scope.name,
            state=scope.limit.state.value,
            waiting=scope.waiting,
            in_flight=scope.limit.in_flight,
            opens_in_s=max(0.0, scope.opens_at_s - now),
            quota_used_up=scope.quota is not None,
            count=belief.count if known else None,
            period_s=belief.period_s if known else None,
            proven=belief.proven if known else 0.0,
            concurrency_limit=None if concurrency_limit == math.inf else concurrency_limit,
            reserve=belief.reserve,
        )


def statuses(scopes: Iterable[ScopeState], now: float, most: int) -> list[ScopeStatus]:
    """Returns the status of at most `most` scopes: those with something to show, the busiest first.

    Callers choose model ids, so there may be thousands of scopes with neither requests nor a known limit.
    """
    shown = [scope for scope in scopes if _has_something_to_show(scope, now)]
    return [ScopeStatus.of(scope, now) for scope in heapq.nlargest(most, shown, key=_rank)]


def _has_something_to_show(scope: ScopeState, now: float) -> bool:
    limit = scope.limit
    is_in_use = limit.in_flight > 0 or scope.waiting > 0
    return is_in_use or scope.opens_at_s > now or limit.estimate.known or scope.quota is not None


def _rank(scope: ScopeState) -> tuple[int, float, int, float]:
    limit = scope.limit
    return scope.waiting, scope.opens_at_s, limit.in_flight, limit.last_grant_s
