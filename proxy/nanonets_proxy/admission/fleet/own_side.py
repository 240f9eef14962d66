"""The requests of one replica, its own gate, and what it knows of the limits and of the fleet."""

import math
from collections.abc import Mapping

from nanonets_proxy.admission.fleet.beliefs import Beliefs
from nanonets_proxy.admission.fleet.hello import make_hello
from nanonets_proxy.admission.fleet.homes.local_home import LocalHome
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.homes.remote_home import Message
from nanonets_proxy.admission.fleet.room import FleetRoom
from nanonets_proxy.core.ratelimit.fleet.grant_log import GrantLog
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.fleet.share import share_policy
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy


class OwnSide:
    """Its gate decides while the replica is alone, and for all while it leads."""

    def __init__(self, policy: GatePolicy, names: Names, make: HomeMaker) -> None:
        self._names = names
        self.policy = names.policy(policy)
        """With the names on the wire."""
        self.beliefs = Beliefs(make.loop.time())
        self.replicas = 1
        """How many replicas the fleet had when last heard of."""
        self.others = 0
        """How many replicas with another version of the protocol are here, as last heard of."""
        self.parts = 1
        """Into how many parts the share is divided: during a restart, two processes use it."""
        self.predecessor, self.bequeathed = "", 0
        """The replica that this one replaces, and the number of its latest grant in the log of this one."""
        self.home = make.alone(self.policy, self.beliefs, 1, GrantLog(), {})
        self._knew_nothing = True  # whether nothing was known of the limits when `home` was made
        self.room = FleetRoom(policy, names, self.home, make.loop)
        self._make = make

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy to the requests. `share` applies it to the gate of a replica that is alone."""
        self.policy = self._names.policy(policy)
        self.room.change_policy(policy)

    def share(self) -> GatePolicy:
        """Returns the policy of a gate with this replica's share."""
        return share_policy(self.policy, self.beliefs.snapshots, self._sharers)

    @property
    def _sharers(self) -> int:
        return (self.replicas + self.others) * self.parts

    @property
    def longest_period_s(self) -> float:
        """How long a request may count while this replica is alone."""
        limits = self.share().static_limits
        return max((row.period_s for row in (*limits.rows, *limits.named.values())), default=0.0)

    def _closures(self) -> Mapping[str, float]:
        """Returns until when each scope is closed, as its gate knows if that decides, or by later 429s."""
        gate = self.home.gate if self.room.is_at(self.home) else None
        return self.beliefs.closures(gate, self._make.loop.time())

    def renew(self) -> None:
        """Makes a gate with this replica's share of what is known."""
        log, closures = self.room.log, self._closures()
        self.home = self._make.alone(self.policy, self.beliefs, self._sharers, log, closures)
        self._knew_nothing = not self.beliefs.snapshots

    @property
    def decides(self) -> bool:
        """Whether its gate decides on its requests, and was not made before the first limits were known."""
        return self.room.is_at(self.home) and not (self._knew_nothing and self.beliefs.snapshots)

    def decide_alone(self) -> None:
        """From now on, a gate with this replica's share decides on its requests."""
        self.renew()
        self.use(self.home, 0)

    def make_leading(self) -> LocalHome:
        """Makes a gate for all replicas, and returns its home."""
        self.home = self._make.leading(self.policy, self.beliefs, self.room.log, self._closures())
        self.beliefs.leader_log = GrantLog()
        return self.home

    def use(self, home: LocalHome, epoch: int, valid_until_s: float = math.inf) -> None:
        """From now on, the gate of `home` decides on the requests."""
        self.room.valid_until_s, home.may_decide = valid_until_s, self.room.may_decide
        self.room.move(home, epoch)
        home.room.poll()

    def granted(self) -> list[tuple[str, float, float, int]]:
        """Returns the grants to its requests that may still count, as (scope, age, cost, epoch)."""
        now_s = self._make.loop.time()
        ended = self.room.log.entries(now_s, self.beliefs.periods_s())
        return ended + [(c.scope, now_s - c.granted_at_s, c.cost, c.epoch) for c in self.room.held()]

    def prune(self) -> None:
        """Forgets the grants that no longer count."""
        for log in (self.room.log, self.beliefs.leader_log):
            log.prune(self._make.loop.time(), self.beliefs.periods_s())

    def shown(self) -> Gate:
        """Returns a gate that shows what the leader has told."""
        return self._make.shown(self.policy, self.beliefs)

    def hello(self, epoch: int) -> Message:
        """Returns the hello to the leader of this epoch."""
        places, now_s = self.policy.max_in_flight, self._make.loop.time()
        return make_hello(self.room, places, epoch, self.beliefs, self._closures(), now_s)
