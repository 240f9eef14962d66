"""One replica of a fleet: which gate decides on its requests, and when that changes.

`state.py` has its states and transitions, and docs/fleet.md the whole protocol.
"""

import asyncio
import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Final

from nanonets_proxy.admission.fleet.beater import Beater
from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, Bus, Won
from nanonets_proxy.admission.fleet.bus.post import Post, deliver
from nanonets_proxy.admission.fleet.campaign import Campaign
from nanonets_proxy.admission.fleet.counts_post import CountsPost
from nanonets_proxy.admission.fleet.hello import make_alive
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.homes.remote_home import Message, RemoteHome
from nanonets_proxy.admission.fleet.lead import Lead
from nanonets_proxy.admission.fleet.own_side import OwnSide
from nanonets_proxy.admission.fleet.silence import Silence, most_ticks
from nanonets_proxy.admission.fleet.state import BEAT_S, BEATS_MISSED, GATHER_BEAT_S, State
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

_ALIVE_EACH_S: Final = 0.5


class Replica:
    """Call `start`, use `room`, then call `stop`."""

    def __init__(self, name: str, policy: GatePolicy, names: Names, bus: Bus, make: HomeMaker) -> None:
        """`name` is unique in the fleet."""
        self.name = name
        self.state = State.ALONE
        self.on_change: Callable[[str], None] = lambda _: None
        """Called with the reason when the state has become ALONE, FOLLOWING or LEADING."""
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
        self._coordinated = asyncio.Event()  # set once a leader decides, for the start
        self._remote: RemoteHome | None = None
        self._lead: Lead | None = None
        self.room.on_stale = self._on_stale
        self.room.on_ask, self.room.on_refused = self._silence.watch, self.beliefs.note_refusal

    async def start(self, patience_s: float) -> None:
        """Connects, and waits up to `patience_s` until a leader decides."""
        self._bus.start(self._on_data, self._go_alone, self._on_unheard)
        self._beater.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._coordinated.wait(), patience_s)

    async def stop(self) -> None:
        """Says goodbye. The claims of this replica must have ended."""
        self._stopped = True
        self._silence.stop()
        self._beater.stop()
        self.campaign.stop()
        self.counts.stop()
        if self._lead is not None:
            resignation = self._lead.end()
            self._post.flush()
            await self._bus.resign(self.epoch)
            self._post.send(EVERYBODY, resignation)
        elif self._leader:
            self._post.send(self._leader, {"t": "bye"})
        self._post.flush()
        await self._bus.stop()

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy."""
        self.own.change_policy(policy)
        if self._lead is not None and self._lead.host is not None:
            self._lead.use(policy)
        else:
            self.own.home.room.change_policy(self.own.share())

    def use_part(self, parts: int) -> None:
        """Uses one of so many parts of its share while no leader decides: during a restart, there are two."""
        self.own.parts = parts
        if self.state is State.ALONE:
            self.own.decide_alone(is_remote=False)

    @property
    def replicas(self) -> int:
        """How many replicas the fleet had when last heard of."""
        return self.own.replicas

    def gate(self) -> Gate:
        """Returns a gate that shows what is known of the limits. Only a local home's gate has tickets."""
        return self.own.home.gate if self._remote is None else self.own.shown()

    def _changed(self, reason: str) -> None:
        self.counts.use(self.state, self.own.replicas)
        self.on_change(reason)

    def _go_alone(self, reason: str) -> None:
        if self.state is State.ALONE:
            return
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
            self._lead.note_in(self.beliefs)
            self._lead.end()
            self._lead = None

    def hello(self, epoch: int) -> Message:
        """Returns what this replica tells the leader of this epoch."""
        if self._lead is not None:
            self._lead.note_in(self.beliefs)
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

    @property
    def _seeks_lease(self) -> bool:
        """Whether nobody leads, as far as this replica knows: it is alone, or its leader has just resigned."""
        return self.state is State.ALONE or (self.state is State.JOINING and not self._leader)

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
        self._lead = Lead(
            self.name, won.epoch, self.own.replicas, asked_at_s, self._bus, self.counts.shared, self._loop
        )
        self._lead.on_end, self._lead.on_renewed = self._go_alone, self._on_renewed
        self._lead.on_ready = partial(self._open, self._lead)
        self.room.on_own_grant = self._lead.note_grant
        self.beliefs.note_kept(won, self._loop.time())
        self.counts.note_kept(won)
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
        self._coordinated.set()
        self._changed("this replica leads")

    def _rush_beat(self) -> None:
        """Lets the next beat come at once, or in a moment if this replica must campaign first."""
        self._beater.rush(self.campaign.pause_s() if self._seeks_lease else 0.0)

    def _beat(self) -> float:
        now_s, wait_s = self._loop.time(), BEAT_S
        if self._lead is not None:
            self._lead.beat()
            wait_s = GATHER_BEAT_S if self._lead.gathers else BEAT_S
            self.own.replicas = self._lead.replicas
            self._silence.watch()
        elif self._seeks_lease:
            wait_s = self.campaign.pause_s()
            self.campaign.run(self.epoch)
        elif self._beat_heard_at_s + BEATS_MISSED * BEAT_S < now_s:
            self._go_alone("the leader is silent")
            wait_s = self.campaign.pause_s()
        elif self._alive_at_s + _ALIVE_EACH_S <= now_s and self._remote is not None and self._remote.joined:
            self._alive_at_s = now_s
            self._post.send(self._leader, make_alive(self.room, self._remote))
        self.room.expire(now_s)
        return wait_s

    def _on_unheard(self, name: str) -> None:
        if self._lead is not None and self._lead.host is not None:
            self._lead.host.forget(name)
        elif name == self._leader and self._remote is not None:
            self._go_alone("the leader is gone")

    def _on_renewed(self, valid_until_s: float) -> None:
        self._silence.heard()
        if self.state is State.LEADING:
            self.room.valid_until_s = valid_until_s

    def _on_data(self, data: bytes) -> None:
        if self._stopped:
            return
        if self._loop.time() > self.room.valid_until_s:
            self.room.on_stale()
        deliver(data, self._on_message)

    def _on_message(self, sender: str, epoch: int, message: Message) -> None:
        what, now_s = message["t"], self._loop.time()
        if what == "beat":
            self._on_beat(sender, epoch, message, now_s)
        elif self.counts.hear(message) or epoch < self.epoch or (epoch > self.epoch and what != "resign"):
            return  # counts, or of an earlier leader, or of a later one that we have not heard yet
        elif what == "resign":
            self._on_resign(sender, epoch, message, now_s)
        elif self._lead is not None:
            self.counts.on_message(what, sender)
            if what == "hello" and self.state is State.COLLECTING:
                self.beliefs.hear(message["beliefs"], now_s)
            self._lead.on_message(what, message | {"from": sender}, now_s)
        elif self._remote is not None and sender == self._leader:
            if what != "granted":  # which answers nothing
                self._silence.heard()
            if what == "welcome":
                self._on_welcome()
            elif what == "who":
                self._join(self._leader, self.epoch)
            elif what == "granted":
                self.beliefs.note_leader_grants(message["log"], now_s)
            elif self._remote.joined:
                self._remote.answer(message)

    def _on_welcome(self) -> None:
        if self._remote is not None and not self._remote.joined:
            self.state = State.FOLLOWING
            self.room.told(self.epoch)
            self._remote.join()
            self._silence.watch()
            self._coordinated.set()
            self._changed("a leader decides")

    def _on_beat(self, sender: str, epoch: int, message: Message, now_s: float) -> None:
        if sender == self.name:
            if self._lead is not None and self._lead.epoch == epoch:
                self._lead.own_beat_heard()
            return
        if epoch < self.epoch:
            return
        if message.get("gathers"):
            if not self._seeks_lease:
                self._go_alone("another replica begins to lead")
            self.epoch = epoch
            self._post.send(sender, {"t": "here"})
            return
        self._beat_heard_at_s = now_s
        self.own.replicas = max(2, int(message["replicas"]))  # the leader, and this replica
        follows = self._remote is not None and self._remote.epoch == epoch and self._leader == sender
        self.beliefs.note_beat(message, epoch, now_s, is_of_known_leader=follows)
        if not follows:
            self._join(sender, epoch)

    def _on_resign(self, sender: str, epoch: int, message: Message, now_s: float) -> None:
        if sender == self._leader and sender != self.name:
            self.beliefs.note_leader_grants(message["log"], now_s)
            self.own.replicas = max(1, self.own.replicas - 1)
            self._join("", epoch)
            self._rush_beat()
