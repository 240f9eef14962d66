"""Builds the gates of a replica: one with its share of the limits, and one that decides for a whole fleet."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nanonets_proxy.admission.fleet.beliefs import Beliefs
from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
from nanonets_proxy.admission.fleet.homes.local_home import LocalHome
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.adaptive.other_gates import merge, take_over
from nanonets_proxy.core.ratelimit.fleet.grant_log import NOBODY, GrantLog
from nanonets_proxy.core.ratelimit.fleet.share import leader_policy, share_of, share_policy
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.news import News


@dataclass(frozen=True, slots=True)
class HomeMaker:
    """What every gate of a replica needs."""

    loop: asyncio.AbstractEventLoop
    jitter: Callable[[], float]
    on_news: Callable[[News], None]
    slept_s: Callable[[], float]

    def alone(
        self,
        policy: GatePolicy,
        beliefs: Beliefs,
        replicas: int,
        log: GrantLog,
        closures: Mapping[str, float],
    ) -> LocalHome:
        """Returns a home with one replica's share of what is known, less its part of what is used already.

        Where nobody told what the fleet has used, its own earlier grants count. They also count alone if the share
        is less than one request in a period: then each replica has its turn after its own request.

        `closures`: until when each scope is closed, as this replica knows.
        """
        now_s = self.loop.time()
        shares = [share_of(belief, replicas) for belief in beliefs.snapshots]
        gate = Gate(share_policy(policy, beliefs.snapshots, replicas), self.jitter)
        gate.scopes.restore(shares, now_s, beliefs.age_s(now_s))
        periods_s = {share.scope: share.period_s for share in shares if share.count is not None}
        own = log.ages(now_s, NOBODY, periods_s)
        parted = set[str]()
        for belief in beliefs.snapshots:
            scope = belief.scope
            if scope in beliefs.use and periods_s.get(scope) == belief.period_s:
                own.pop(scope, None)
                parted.add(scope)
                part = beliefs.use.part(scope, log.grants(scope), replicas, self.jitter())
                merge(gate.limit_to_tell(scope, now_s), part, -math.inf)
        for scope, ages in own.items():
            _merge(gate, scope, ages, now_s)
        for scope, opens_at_s in closures.items():
            merge(gate.limit_to_tell(scope, now_s), (), opens_at_s)
        home = self.of(gate)
        home.counts = lambda claim: (
            claim.scope in parted
            and isinstance(claim, OwnClaim)
            and beliefs.use.has(claim.scope, claim.granted_at_s, claim.epoch)
        )
        return home

    def leading(
        self, policy: GatePolicy, beliefs: Beliefs, log: GrantLog, closures: Mapping[str, float]
    ) -> LocalHome:
        """Returns a home for the claims of a fleet, with what this replica knows. Members' hellos add to it."""
        now_s = self.loop.time()
        gate = Gate(leader_policy(policy, policy.max_in_flight, 1), self.jitter)
        gate.scopes.restore(beliefs.snapshots, now_s, beliefs.age_s(now_s))
        periods_s = beliefs.periods_s()
        for each in (log, beliefs.leader_log):
            for scope, ages in each.ages(now_s, NOBODY, periods_s).items():
                _merge(gate, scope, ages, now_s)
        for scope, opens_at_s in closures.items():
            merge(gate.limit_to_tell(scope, now_s), (), opens_at_s)
        for state in gate.scopes:
            take_over(state.limit, now_s)
        return self.of(gate)

    def shown(self, policy: GatePolicy, beliefs: Beliefs) -> Gate:
        """Returns a gate that shows what is known, and decides on nothing."""
        now_s, gate = self.loop.time(), Gate(policy, self.jitter)
        gate.scopes.restore(beliefs.snapshots, now_s, beliefs.age_s(now_s))
        return gate

    def of(self, gate: Gate) -> LocalHome:
        """Returns a home at this gate."""
        return LocalHome(gate, WaitingRoom(gate, self.loop, self.on_news, self.slept_s), self.loop)


def _merge(gate: Gate, scope: str, ages: list[tuple[float, float, int]], now_s: float) -> None:
    merge(gate.limit_to_tell(scope, now_s), [(now_s - age_s, cost) for age_s, cost, _ in ages], -math.inf)
