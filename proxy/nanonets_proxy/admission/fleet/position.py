"""Where a replica stands in its fleet (`state.py`).

Each transition moves all claims to the gate that decides from now on.
"""

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nanonets_proxy.admission.fleet.beliefs import Told
from nanonets_proxy.admission.fleet.bus.port import Bus, Won
from nanonets_proxy.admission.fleet.bus.post import Post
from nanonets_proxy.admission.fleet.campaign import Campaign
from nanonets_proxy.admission.fleet.counts_post import CountsPost
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.homes.remote_home import UNANSWERED, Message, RemoteHome
from nanonets_proxy.admission.fleet.lead import DEAF, OTHER_VERSION, Lead
from nanonets_proxy.admission.fleet.own_side import OwnSide
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.admission.fleet.timers import Beater, Silence, most_ticks
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.ratelimit.fleet.grant_log import GrantLog
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.fleet.rejoins import Rejoins
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

KNOWS_LESS: Final = "replicas that know the limits better have come"


class Position:
    """The state of a replica, and its transitions. `Replica` hears what causes them."""

    def __init__(
        self, name: str, policy: GatePolicy, names: Names, bus: Bus, make: HomeMaker, beat: "Callable[[], float]"
    ) -> None:
        """`name` is unique in the fleet. `beat` does what is due, and returns when to call it again, in seconds."""
        self.name = name
        self.state = State.ALONE
        self.on_change: Callable[[str], None] = lambda _: None
        """Called with the reason when the state has become ALONE, FOLLOWING or LEADING, or shares have changed."""
        self._bus = bus
        self._loop = loop = make.loop
        self.own = OwnSide(policy, names, make)
        self.room, self.beliefs = self.own.room, self.own.beliefs
        self.leader = ""
        """The name of the latest leader; empty: it has resigned, or none was heard."""
        self._leader_has_gone = False  # its channel has no subscriber any more
        self._rejoins = Rejoins()
        self.epoch = 0
        """The largest epoch that this replica has heard of."""
        self.epoch_of = ""
        """The replica that it has heard it from."""
        self.on_void_epoch: Callable[[str, str], None] = lambda *_: None
        """Called with that replica and the reason when no leader can have had this epoch."""
        self.silence = Silence(
            loop, lambda: most_ticks(self.lead, self.remote, is_sending=bus.is_sending), self._on_silence
        )
        self.beater = Beater(loop, beat)
        self.campaign = Campaign(bus, loop, make.jitter, self._collect, self._note_late, self._forget_epoch)
        self.post = Post(name, bus, loop, lambda: self.epoch)
        self.counts = CountsPost(SharedCounts(name, names.lane), self.post.send, loop)
        self.stopped = False
        """Set when the replica stops: from then on, nothing that comes from Redis changes its state."""
        self._reason = ""  # of the latest change
        self._begun_with = 0  # the epoch of the beliefs with which the latest lead began
        self.met = asyncio.Event()
        """Set once this replica knows the fleet."""
        self.remote: RemoteHome | None = None
        """In JOINING and FOLLOWING."""
        self.lead: Lead | None = None
        """In COLLECTING and LEADING."""
        self.room.on_stale = self._on_stale
        self.room.on_ask, self.room.on_refused = self.silence.watch, self.beliefs.note_refusal

    @property
    def seeks_lease(self) -> bool:
        """Whether nobody leads, as far as this replica knows: it is alone, or its leader has just resigned."""
        return self.state is State.ALONE or not self.leader

    def rush_beat(self) -> None:
        """Lets the next beat come at once, or in a moment if this replica must campaign first."""
        self.beater.rush(self.campaign.pause_s() if self.seeks_lease else 0.0)

    def _changed(self, reason: str) -> None:
        self._reason = reason
        self.counts.use(self.state, self.own.replicas + self.own.others)
        self.on_change(reason)

    def go_alone(self, reason: str) -> None:
        """From now on, this replica decides with its share."""
        if self.stopped:
            return
        if self.state is State.ALONE:
            if self.own.others and reason != self._reason:
                self._changed(reason)
            return
        # A replica that collects decides alone already, and a new gate would not know what this one has learned.
        decides_alone = self.state is State.COLLECTING and self.own.decides
        self._leave_lead()
        self._rejoins.left(self._loop.time())
        self.state = State.ALONE
        if not decides_alone:
            self.own.decide_alone()
        self.remote = None
        self.rush_beat()
        self._changed(reason)

    def _on_silence(self, reason: str) -> None:
        now_s = self._loop.time()
        self._rejoins.left(now_s)
        if self.lead is not None and self.lead.is_deaf:
            self._give_up(DEAF)
        elif self._rejoins.may_join(self.leader, now_s):
            self.go_alone(reason)
        else:
            self.leave_unanswered()

    def leave_unanswered(self) -> None:
        """Leaves a leader that does not answer. A connection of this replica may be the cause."""
        self.go_alone(UNANSWERED)
        self._bus.reconnect(UNANSWERED)

    def lose_leader(self) -> None:
        """Notes that a message to the leader has reached nobody: its process has ended, or lost Redis."""
        self._leader_has_gone = True
        self.go_alone("the leader is gone")

    def _give_up(self, reason: str) -> None:
        """Lets another replica lead, since this one cannot. A connection of this replica may be the cause."""
        self.campaign.give_back(self.epoch, lambda: self._bus.reconnect(reason))
        self.go_alone(reason)

    def _on_stale(self) -> None:
        """Waits for the next leader, which was found meanwhile or will be soon. A lost connection ends the lead."""
        self.join("", self.epoch)
        self.rush_beat()

    def _leave_lead(self) -> None:
        """Ends what only a leader has."""
        if self.lead is not None:
            self.lead.note_beliefs()
            self.lead.end()
            self.lead = None

    def hears(self) -> None:
        """Notes that Redis has delivered a message, of whatever replica."""
        if self.lead is not None and self.lead.hears():
            self.silence.heard()

    def share_with(self, replicas: int, others: int) -> None:
        """Uses one replica's share, while `replicas` of this version and `others` of other versions are here."""
        if (replicas, others) != (self.own.replicas, self.own.others):
            self.own.replicas, self.own.others = replicas, others
            if others:
                self.own.decide_alone()
                self.counts.use(self.state, replicas + others)
        if others:
            self.met.set()
            if self._reason != OTHER_VERSION:
                self._changed(OTHER_VERSION)

    def welcomed(self, log: Any, told_at_s: float) -> None:
        """From now on, the leader decides, whose own grants are in `log`. Ignores a repeated welcome."""
        if self.remote is not None and not self.remote.joined:
            self.beliefs.leader_log = GrantLog()
            self.beliefs.note_leader_grants(log, told_at_s)
            if self.leader == self.own.predecessor:  # its grants are in `log`
                self.room.log.drop(self.own.bequeathed)
            self.state = State.FOLLOWING
            self.room.told(self.epoch)
            self.remote.join()
            self.silence.restart()
            self.met.set()
            self._changed("a leader decides")
            self.counts.tell_missing(self.leader)

    def follows(self, leader: str, epoch: int) -> bool:
        """Returns whether this replica follows this leader, or has said hello to it."""
        return self.remote is not None and (self.leader, self.epoch) == (leader, epoch)

    def may_join(self, leader: str) -> bool:
        """Returns whether it may join this leader. After short times with it, this replica waits a while."""
        return self._rejoins.may_join(leader, self._loop.time())

    def hello(self, epoch: int) -> Message:
        """Returns what this replica tells the leader of this epoch."""
        if self.lead is not None:
            self.lead.note_beliefs()
        return self.own.hello(epoch)

    def hear_beliefs(self, told: Told, told_at_s: float) -> None:
        """Notes the beliefs in a hello. If they count before its own, a replica that leads begins anew with them.

        Beliefs that it knew when it began are no reason: it has learned since then. So it begins anew once, even if
        the replicas that have these beliefs come one by one.
        """
        if self.lead is None or (self.state is State.LEADING and told[0] <= self._begun_with):
            return
        self.lead.note_beliefs()
        if self.beliefs.hear(told, told_at_s, self.epoch) and self.state is State.LEADING:
            self.own.replicas = max(self.own.replicas, self.beliefs.of.replicas)
            self.lead.end()  # what it believed counts no more
            self.go_alone(KNOWS_LESS)

    def prune(self) -> None:
        """Forgets the grants that no longer count."""
        if self.lead is not None:
            self.lead.note_beliefs()
        self.own.prune()

    def join(self, leader: str, epoch: int) -> None:
        """Says hello to a leader; empty: waits for one. Until its welcome, nobody grants anything here."""
        self._leave_lead()
        self._rejoins.joined(leader, self._loop.time())
        self._leader_has_gone = False
        self.leader, self.epoch = leader, epoch
        self.epoch_of = leader or self.epoch_of
        hello = self.hello(epoch)
        self.remote = RemoteHome(lambda message: self.post.send(leader, message), self._loop, self.own.replicas)
        self.state = State.JOINING
        self.room.valid_until_s = math.inf
        self.room.move(self.remote, epoch)
        if leader:
            self.room.telling(epoch)
            self.counts.shared.compare()
            self.post.send(leader, hello)
        self.silence.restart()

    def _collect(self, won: Won, asked_at_s: float) -> bool:
        """Begins to lead: asks which replicas are here, and then for their hellos.

        Returns False if this replica cannot use the lease: it stops, or it has heard of a leader meanwhile.
        """
        if self.stopped or not self.seeks_lease or won.epoch <= self.epoch:
            return False
        self._rejoins.left(asked_at_s)
        if self.remote is not None:  # the gate from before is out of date
            self.own.renew()
            self.remote = None
        self.state = State.COLLECTING
        self.silence.restart()
        self.epoch, self.leader, self.epoch_of = won.epoch, self.name, self.name
        beliefs, counts = self.beliefs, self.counts.shared
        replicas, gone = self.own.replicas, int(self._leader_has_gone)
        self._leader_has_gone = False  # a later lead of this replica does not count it any more
        self.lead = Lead(self.name, won, replicas, gone, asked_at_s, self._bus, beliefs, counts, self._loop)
        self.lead.on_end, self.lead.on_unfit, self.lead.on_renewed = self.go_alone, self._give_up, self._on_renewed
        self.lead.on_ready = partial(self._open, self.lead)
        self.lead.own_log = lambda: [grant[:3] for grant in self.own.granted()]
        self.room.on_own_grant = self.lead.note_grant
        self._note_kept(won)
        self.share_with(self.own.replicas, won.others)
        self.rush_beat()
        return True

    def _forget_epoch(self, reason: str) -> None:
        """Forgets an epoch that no leader can have had. Otherwise, this replica would ignore all true leaders."""
        self.on_void_epoch(self.epoch_of, reason)
        self.epoch = 0

    def _note_late(self, won: Won) -> None:
        """Notes what the last leader kept. The lease came too late to lead with it."""
        self._note_kept(won)
        if self.state is State.ALONE and not self.own.decides:
            self.own.decide_alone()

    def _note_kept(self, won: Won) -> None:
        self.beliefs.note_kept(won, self._loop.time())
        self.counts.note_kept(won)

    def _open(self, lead: Lead) -> None:
        """Begins to decide for all replicas that said hello."""
        self.state = State.LEADING
        self._begun_with = self.beliefs.of.epoch
        home = self.own.make_leading()
        lead.open(home, self.own.policy, self.post.send)
        self.own.use(home, self.epoch, lead.valid_until_s)
        self.rush_beat()
        self.met.set()
        self._changed("this replica leads")

    def _on_renewed(self, valid_until_s: float) -> None:
        if self.lead is not None and not self.lead.is_deaf:
            self.silence.heard()
        if self.state is State.LEADING:
            self.room.valid_until_s = valid_until_s
