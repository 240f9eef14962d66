"""One replica of a fleet: hears the others, and decides which gate decides on its requests.

`state.py` has its states and transitions, and docs/fleet-protocol.md the whole protocol.
"""

import math
from typing import Final

from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, Bus
from nanonets_proxy.admission.fleet.bus.post import Inbox
from nanonets_proxy.admission.fleet.hello import make_alive
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.homes.remote_home import Message
from nanonets_proxy.admission.fleet.lead import OTHER_VERSION
from nanonets_proxy.admission.fleet.position import Position
from nanonets_proxy.admission.fleet.state import BEAT_S, BEATS_MISSED, GATHER_BEAT_S, State
from nanonets_proxy.admission.fleet.timers import TICK_S
from nanonets_proxy.aio.events import wait_at_most
from nanonets_proxy.core.ratelimit.fleet.arrivals import Arrivals
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

_ALIVE_EACH_S: Final = 0.5
_PRUNE_EACH_S: Final = 60.0
_ANSWERS: Final = frozenset({"grant", "wait", "refuse", "lost"})


class Replica:
    """Call `start`, use `room`, then call `stop`."""

    def __init__(self, name: str, policy: GatePolicy, names: Names, bus: Bus, make: HomeMaker) -> None:
        """`name` is unique in the fleet."""
        self.position = at = Position(name, policy, names, bus, make, self._beat)
        self.own, self.room, self.beliefs = at.own, at.room, at.beliefs
        self.campaign, self.counts = at.campaign, at.counts
        self._bus = bus
        self._loop = make.loop
        self._arrivals = Arrivals()
        self._inbox = Inbox(self._on_message, make.loop)
        at.on_void_epoch = self._inbox.note_invalid
        self._beat_heard_at_s = -math.inf
        self._seems_silent = False
        self._alive_at_s = -math.inf
        self._coordinated_at_s = -math.inf
        self._pruned_at_s = -math.inf

    @property
    def state(self) -> State:
        """Which gate decides on its requests."""
        return self.position.state

    async def start(self, patience_s: float) -> None:
        """Connects, and waits up to `patience_s` until a leader decides, or another version is here."""
        self._bus.start(self._deliver, self.position.go_alone, self._on_unheard)
        self.position.beater.start()
        await wait_at_most(self.position.met, patience_s)

    def _deliver(self, data: bytes) -> None:
        self.position.hears()
        self._inbox.deliver(data)

    async def stop(self) -> None:
        """Says goodbye. The claims of this replica must have ended."""
        self.position.stopped = True
        self.position.silence.stop()
        self.position.beater.stop()
        await self.campaign.stop()
        self.counts.tell_now()
        if self.position.lead is not None:
            resignation = self.position.lead.end()
            self.position.post.flush()
            await self._bus.resign(self.position.epoch)
            self.position.post.send(EVERYBODY, resignation)
        elif self.position.leader:
            self.position.post.send(self.position.leader, {"t": "bye"})
        self.position.post.flush()
        await self._bus.stop()

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy."""
        self.own.change_policy(policy)
        if self.position.lead is not None and self.position.lead.host is not None:
            self.position.lead.use(self.own.policy)
        else:
            self.own.home.room.change_policy(self.own.share())

    def use_part(self, parts: int) -> None:
        """Uses one of `parts` equal parts of its share while no leader decides: during a restart, there are two."""
        self.own.parts = parts
        if self.position.state in (State.ALONE, State.COLLECTING):
            self.own.decide_alone()

    @property
    def replicas(self) -> int:
        """How many replicas the fleet had when last heard of."""
        return self.own.replicas

    @property
    def fault(self) -> str:
        """Why Redis or the lease cannot be used, as far as known; empty: both can."""
        return self._bus.fault or self.campaign.fault

    @property
    def is_coordinated(self) -> bool:
        """Whether a leader decides, or none can because replicas with another version of the protocol are here."""
        return self.state.is_coordinated or (self.own.others > 0 and self._bus.connected)

    @property
    def uncoordinated_for_s(self) -> float:
        """For how long it has not been coordinated, to a beat; 0: it is coordinated; inf: it never was."""
        return 0.0 if self.is_coordinated else self._loop.time() - self._coordinated_at_s

    def gate(self) -> Gate:
        """Returns a gate that shows what is known of the limits. Only a local home's gate has tickets."""
        return self.own.home.gate if self.position.remote is None else self.own.shown()

    def _beat(self) -> float:
        position, now_s, wait_s = self.position, self._loop.time(), BEAT_S
        if position.lead is not None:
            position.lead.beat()
            wait_s = GATHER_BEAT_S if position.lead.gathers and not position.lead.others else BEAT_S
            position.share_with(position.lead.replicas, position.lead.others)
            position.silence.watch()
        elif position.seeks_lease:
            wait_s = self.campaign.pause_s()
            if not self.own.others or self._beat_heard_at_s + BEATS_MISSED * BEAT_S < now_s:
                self.campaign.run(position.epoch)
        elif self._beat_heard_at_s + BEATS_MISSED * BEAT_S < now_s:
            if self._seems_silent:
                position.go_alone("the leader is silent")
                wait_s = self.campaign.pause_s()
            else:  # if this process stood still, a beat may be here already, unread
                self._seems_silent, wait_s = True, TICK_S
        elif self._alive_at_s + _ALIVE_EACH_S <= now_s and position.remote is not None and position.remote.joined:
            self._alive_at_s, places = now_s, self.own.policy.max_in_flight
            position.post.send(position.leader, make_alive(self.room, places, position.remote))
            if not position.remote.still_answers(now_s):
                position.leave_unanswered()
                wait_s = self.campaign.pause_s()
        if self.is_coordinated:
            self._coordinated_at_s = now_s
        self.room.expire(now_s)
        if self._pruned_at_s + _PRUNE_EACH_S < now_s:
            self._pruned_at_s = now_s
            position.prune()
        return wait_s

    def _on_unheard(self, name: str) -> None:
        if self.position.stopped:
            return
        if self.position.lead is not None and self.position.lead.host is not None:
            self.position.lead.host.forget(name)
        elif name == self.position.leader:
            self.position.lose_leader()

    def _on_message(self, sender: str, epoch: int, told_s: float, message: Message) -> None:
        position, what, now_s = self.position, message["t"], self._loop.time()
        if position.stopped:
            return
        self.room.may_decide(now_s)
        sent_at_s = message["sent_at_s"] = self._arrivals.sent_at_s(sender, told_s, now_s)
        if what == "beat":
            if position.lead is not None and (sender, epoch) == (position.name, position.lead.epoch):
                position.lead.came_back(now_s - told_s)
            self._on_beat(sender, epoch, message, now_s)
        elif what == "used":
            self.counts.hear(sender, message["counts"], is_leader=self.state is State.LEADING)
        elif epoch < position.epoch or (epoch > position.epoch and what != "resign"):
            return  # of an earlier leader, or of a later one that we have not heard yet
        elif what == "resign":
            self._on_resign(sender, epoch, message)
        elif position.lead is not None:
            if position.lead.is_new(what, sender):
                self.counts.tell_all(sender)
            if what == "hello":
                position.hear_beliefs(message["beliefs"], sent_at_s)
            if position.lead is not None:
                position.lead.on_message(what, message | {"from": sender}, now_s)
        elif position.remote is not None and sender == position.leader:
            if what != "granted":  # which answers nothing
                position.silence.heard()
            if what == "welcome":
                position.welcomed(message["log"], sent_at_s)
            elif what == "who" and position.remote.joined:  # else the hello is underway
                position.join(position.leader, position.epoch)
            elif what == "granted":
                self.beliefs.note_leader_grants(message["log"], sent_at_s)
            elif what in _ANSWERS and position.remote.joined:
                position.remote.answer(message)

    def _on_beat(self, sender: str, epoch: int, message: Message, now_s: float) -> None:
        position = self.position
        if sender == position.name or epoch < position.epoch:
            return
        if message.get("gathers"):
            if "others" in message or not position.seeks_lease:
                position.go_alone(OTHER_VERSION if "others" in message else "another replica begins to lead")
            position.epoch, position.epoch_of = epoch, sender
            position.post.send(sender, {"t": "here"})
            if "others" in message:
                self._on_other_version(message, now_s)
            return
        follows = position.follows(sender, epoch)
        if not follows and not position.may_join(sender):
            return
        self._beat_heard_at_s, self._seems_silent, self.own.others = now_s, False, 0
        # The leader, and this replica. A new leader may not have heard of the others yet.
        self.own.replicas = max(2, message["replicas"], 0 if follows else self.own.replicas)
        self.beliefs.note_beat(message, epoch, message["sent_at_s"], is_of_known_leader=follows)
        if not follows:
            position.join(sender, epoch)

    def _on_other_version(self, message: Message, now_s: float) -> None:
        self._beat_heard_at_s = now_s
        if not self.beliefs.snapshots:
            self.beliefs.hear(message["told"], now_s, self.position.epoch)
        self.position.share_with(message["replicas"], message["others"])

    def _on_resign(self, sender: str, epoch: int, message: Message) -> None:
        if sender == self.position.leader and sender != self.position.name:
            self.beliefs.note_leader_grants(message["log"], message["sent_at_s"])
            if self.own.others:  # this replica decides already
                self._beat_heard_at_s = -math.inf
            else:
                self.own.replicas -= 1  # a follower knows of its leader and of itself
                self.position.join("", epoch)
            self.position.rush_beat()
