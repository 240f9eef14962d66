"""The transitions of a replica (`state.py`): each moves all claims to the gate that decides from now on."""

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING

from nanonets_proxy.admission.fleet.bus.port import Bus, Won
from nanonets_proxy.admission.fleet.bus.post import Post
from nanonets_proxy.admission.fleet.campaign import Campaign
from nanonets_proxy.admission.fleet.counts_post import CountsPost
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.homes.remote_home import Message, RemoteHome
from nanonets_proxy.admission.fleet.lead import OTHER_VERSION, Lead
from nanonets_proxy.admission.fleet.own_side import OwnSide
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.admission.fleet.timers import Beater, Silence, most_ticks
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

if TYPE_CHECKING:
    from collections.abc import Callable


class Transitions:
    """The parts of a replica, and its changes of state. `Replica` hears what causes them."""

    def __init__(self, name: str, policy: GatePolicy, names: Names, bus: Bus, make: HomeMaker) -> None:
        """`name` is unique in the fleet."""
        self.name = name
        self.state = State.ALONE
        self.on_change: Callable[[str], None] = lambda _: None
        """Called with the reason when the state has become ALONE, FOLLOWING or LEADING, or shares have changed."""
        self._bus = bus
        self._loop = loop = make.loop
        self.own = OwnSide(policy, names, make)
        self.room, self.beliefs = self.own.room, self.own.beliefs
        self._leader = ""
        self.epoch = 0
        """The largest epoch that this replica has heard of."""
        self._beat_heard_at_s = -math.inf
        self._alive_at_s = -math.inf
        self._silence = Silence(
            loop, lambda: most_ticks(self._lead, self._remote, is_sending=bus.is_sending), self._go_alone
        )
        self._beater = Beater(loop, self._beat)
        self.campaign = Campaign(bus, loop, make.jitter, self._collect)
        self._post = Post(name, bus, loop, lambda: self.epoch)
        self.counts = CountsPost(SharedCounts(name, names.lane), self._post.send, loop)
        self._stopped = False
        self._reason = ""  # of the latest change
        self._met = asyncio.Event()  # set once this replica knows the fleet, for the start
        self._remote: RemoteHome | None = None
        self._lead: Lead | None = None
        self.room.on_stale = self._on_stale
        self.room.on_ask, self.room.on_refused = self._silence.watch, self.beliefs.note_refusal

    def _beat(self) -> float:
        """Does what is due, and returns after how many seconds the next beat is due."""
        raise NotImplementedError

    @property
    def _seeks_lease(self) -> bool:
        """Whether nobody leads, as far as this replica knows: it is alone, or its leader has just resigned."""
        return self.state is State.ALONE or (self.state is State.JOINING and not self._leader)

    def _rush_beat(self) -> None:
        """Lets the next beat come at once, or in a moment if this replica must campaign first."""
        self._beater.rush(self.campaign.pause_s() if self._seeks_lease else 0.0)

    def _changed(self, reason: str) -> None:
        self._reason = reason
        self.counts.use(self.state, self.own.replicas + self.own.others)
        self.on_change(reason)

    def _go_alone(self, reason: str) -> None:
        if self.state is State.ALONE:
            if self.own.others and reason != self._reason:
                self._changed(reason)
            return
        if self._lead is not None:
            self.own.others = self._lead.others
        self._leave_lead()
        self.state = State.ALONE
        self.own.decide_alone(is_remote=self._remote is not None)
        self._remote = None
        self._rush_beat()
        self._changed(reason)

    def _on_stale(self) -> None:
        """Waits for the next leader, which was found meanwhile or will be soon, if Redis can be reached."""
        if self._bus.connected:
            self._join("", self.epoch)
            self._rush_beat()
        else:
            self._go_alone("the process stood still for too long")

    def _leave_lead(self) -> None:
        """Ends what only a leader has."""
        if self._lead is not None:
            self._lead.note_beliefs()
            self._lead.end()
            self._lead = None

    def _share_with(self, replicas: int, others: int) -> None:
        """Uses the share of one among so many replicas of this version and of others."""
        if (replicas, others) != (self.own.replicas, self.own.others):
            self.own.replicas, self.own.others = replicas, others
            if others:
                self.own.decide_alone(is_remote=False)
                self.counts.use(self.state, replicas + others)
        if others:
            self._met.set()
            if self._reason != OTHER_VERSION:
                self._changed(OTHER_VERSION)

    def hello(self, epoch: int) -> Message:
        """Returns what this replica tells the leader of this epoch."""
        if self._lead is not None:
            self._lead.note_beliefs()
        return self.own.hello(epoch, is_remote=self._remote is not None)

    def _join(self, leader: str, epoch: int) -> None:
        """Says hello to a leader; empty: waits for one. Until its welcome, nobody grants anything here."""
        self._leave_lead()
        self._leader, self.epoch = leader, epoch
        hello = self.hello(epoch)
        self._remote = RemoteHome(epoch, lambda message: self._post.send(leader, message), self._loop)
        self.state = State.JOINING
        self.room.valid_until_s = math.inf
        self.room.move(self._remote, epoch)
        if leader:
            self._post.send(leader, hello)
        self._silence.watch()

    def _collect(self, won: Won, asked_at_s: float) -> None:
        """Begins to lead: asks which replicas are here, and then for their hellos."""
        if self._stopped or not self._seeks_lease:
            return
        self._leave_lead()
        if self._remote is not None:  # the gate from before is out of date
            self.own.renew(is_remote=True)
            self._remote = None
        self.state = State.COLLECTING
        self.epoch, self._leader = won.epoch, self.name
        beliefs, counts = self.beliefs, self.counts.shared
        self._lead = Lead(self.name, won, self.own.replicas, asked_at_s, self._bus, beliefs, counts, self._loop)
        self._lead.on_end, self._lead.on_renewed = self._go_alone, self._on_renewed
        self._lead.on_ready = partial(self._open, self._lead)
        self.room.on_own_grant = self._lead.note_grant
        self.beliefs.note_kept(won, self._loop.time())
        self.counts.note_kept(won)
        self._share_with(self.own.replicas, won.others)
        self._rush_beat()

    def _open(self, lead: Lead) -> None:
        """Begins to decide for all replicas that said hello."""
        if self._stopped or lead is not self._lead or lead.host is not None:
            return
        self.state = State.LEADING
        home = self.own.make_leading()
        lead.open(home, self.own.policy, self._post.send)
        self.own.use(home, self.epoch, lead.valid_until_s)
        self._rush_beat()
        self._met.set()
        self._changed("this replica leads")

    def _on_renewed(self, valid_until_s: float) -> None:
        self._silence.heard()
        if self.state is State.LEADING:
            self.room.valid_until_s = valid_until_s
