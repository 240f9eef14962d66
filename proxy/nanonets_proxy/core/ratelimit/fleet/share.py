"""The gate's policy for a leader, and for a replica without one: its share of what the fleet has proven.

A replica alone gets `proven ÷ replicas` of each limit, as a limit that it never exceeds. Of a limit that is
learned, but not proven yet, it gets `count ÷ replicas`. If that is less than one request in a period, it sends one
request in a longer period, so that each replica still has its turn.

All names in policies and beliefs are those on the wire (`names.py`).
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot


def leader_policy(policy: GatePolicy, places: int, replicas: int) -> GatePolicy:
    """Returns the policy of a gate that decides for all replicas, which have `places` in flight together."""
    return replace(policy, max_in_flight=places, max_waiting=policy.max_waiting * replicas)


def share_policy(policy: GatePolicy, beliefs: Iterable[ScopeSnapshot], replicas: int) -> GatePolicy:
    """Returns the policy of a gate that has one replica's share of each limit that is known."""
    known = {
        belief.scope: _share(belief.scope, belief.proven or belief.count, belief.period_s, replicas)
        for belief in beliefs
        if belief.count
    }
    rows = tuple(_share(row.scope, row.count, row.period_s, replicas) for row in policy.static_limits.rows)
    return replace(
        policy,
        static_limits=StaticLimits(rows, known),
        initial_unconfirmed=max(1, policy.initial_unconfirmed // replicas),
        is_share=replicas > 1,
    )


def share_of(belief: ScopeSnapshot, replicas: int) -> ScopeSnapshot:
    """Returns one replica's share of a limit, as a snapshot for a gate with `share_policy`. Nothing counts yet."""
    if belief.count is None:
        return belief
    row = _share(belief.scope, belief.proven or belief.count, belief.period_s, replicas)
    most = belief.concurrency_limit
    return replace(
        belief,
        count=row.count,
        period_s=row.period_s,
        proven=row.count,
        concurrency_limit=None if most is None else max(1.0, most // replicas),
        used=0,
        newest_age_s=0.0,
        grants=(),
    )


def _share(scope: str, count: float, period_s: float, replicas: int) -> StaticLimit:
    share = count / replicas
    if share >= 1:
        return StaticLimit(scope, math.floor(share), period_s)
    return StaticLimit(scope, 1, period_s / share)
