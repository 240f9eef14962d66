"""One replica of a fleet: which gate decides on its requests, and when that changes.

`state.py` has its states and transitions, and docs/fleet.md the whole protocol.
"""

import asyncio
import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Final

from nanonets_proxy.admission.fleet.beliefs import Beliefs
from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, Bus, Won
from nanonets_proxy.admission.fleet.bus.post import Post, deliver
from nanonets_proxy.admission.fleet.campaign import Campaign
from nanonets_proxy.admission.fleet.counts_post import CountsPost
from nanonets_proxy.admission.fleet.hello import make_alive, make_hello
from nanonets_proxy.admission.fleet.homes.local_home import LocalHome
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.homes.remote_home import Message, RemoteHome
from nanonets_proxy.admission.fleet.lead import Lead
from nanonets_proxy.admission.fleet.room import FleetRoom
from nanonets_proxy.admission.fleet.silence import Silence, most_ticks
from nanonets_proxy.admission.fleet.state import BEAT_S, BEATS_MISSED, GATHER_BEAT_S, State
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.ratelimit.fleet.grant_log import GrantLog
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.fleet.share import share_policy
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ALIVE_EACH_S: Final = 0.5


class Replica:
    """Call `start`, use `room`, then call `stop`."""

    def __init__(self, name: str, policy: GatePolicy, names: Names, bus: Bus, make: HomeMaker) -> None:
        """`name` is unique in the fleet."""
        self.name = name
        self.state = State.ALONE
        self.replicas = 1
        """How many replicas the fleet had when last heard of."""
        self.on_change: Callable[[str], None] = lambda _: None
        """Called with the reason when the state has become ALONE, FOLLOWING or LEADING."""
        self._policy = policy
        self._bus = bus
        self._loop = loop = make.loop
        self._make = make
        self._beliefs = Beliefs(loop.time())
        self._leader = ""
        self._epoch = 0
        self._beat_heard_at_s = -math.inf
        self._alive_at_s = -math.inf
        self._silence = Silence(loop, lambda: most_ticks(self._lead, self._remote), self._go_alone)
        self._beater: asyncio.TimerHandle | None = None
        self._campaign = Campaign(bus, make.jitter, self._collect)
        self._post = Post(name, bus, loop, lambda: self._epoch)
        self.counts = CountsPost(SharedCounts(name, names.lane), self._post.send, loop)
        self._stopped = False
        self._coordinated = asyncio.Event()  # set once a leader decides, for the start
        self._remote: RemoteHome | None = None
        self._lead: Lead | None = None
        self._local = make.alone(policy, self._beliefs, 1, GrantLog(), {})
        self.room = FleetRoom(policy, names, self._local, loop)
        self.room.on_stale = lambda: self._go_alone("the process stood still for too long")
        self.room.on_ask, self.room.on_refused = self._silence.watch, self._beliefs.note_refusal

    # --- life ---------------------------------------------------------------------------------------

    async def start(self, patience_s: float) -> None:
        """Connects, and waits up to `patience_s` until a leader decides."""
        self._bus.start(self._on_data, self._go_alone)
        self._beat()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._coordinated.wait(), patience_s)

    async def stop(self) -> None:
        """Says goodbye. The claims of this replica must have ended."""
        self._stopped = True
        self._silence.stop()
        if self._beater is not None:
            self._beater.cancel()
        self._campaign.stop()
        self.counts.stop()
        if self._lead is not None:
            self._lead.end()
            self._post.flush()
            await self._bus.resign(self._epoch)
            self._post.send(EVERYBODY, self._lead.resignation())
        elif self._leader:
            self._post.send(self._leader, {"t": "bye"})
        self._post.flush()
        await self._bus.stop()

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy."""
        self._policy = policy
        self.room.change_policy(policy)
        if self._lead is not None and self._lead.host is not None:
            self._lead.use(policy)
        else:
            self._local.room.change_policy(share_policy(policy, self._beliefs.snapshots, self.replicas))

    def gate(self) -> Gate:
        """Returns a gate that shows what is known of the limits. Only a local home's gate has tickets."""
        if self._remote is None:
            return self._local.gate
        return self._make.shown(self._policy, self._beliefs)

    # --- states -------------------------------------------------------------------------------------

    def _changed(self, reason: str) -> None:
        self.counts.use(self.state, self.replicas)
        self.on_change(reason)

    def _closures(self) -> "Mapping[str, float]":
        return self._beliefs.closures(self._local.gate if self._remote is None else None, self._loop.time())

    def _make_local(self) -> LocalHome:
        return self._make.alone(self._policy, self._beliefs, self.replicas, self.room.log, self._closures())

    def _go_alone(self, reason: str) -> None:
        if self.state is State.ALONE:
            return
        self._leave_lead()
        self._local, self._remote = self._make_local(), None
        self.state = State.ALONE
        self.room.valid_until_s = math.inf
        self.room.move(self._local, 0)
        self._local.room.poll()
        self._rush_beat()
        self._changed(reason)

    def _leave_lead(self) -> None:
        """Ends what only a leader has."""
        lead, self._lead = self._lead, None
        if lead is not None:
            lead.end()
            if lead.host is not None:
                now_s = self._loop.time()
                self._beliefs.note(lead.host.home.gate.scopes.snapshots(now_s), 0.0, now_s)

    def _join(self, leader: str, epoch: int) -> None:
        """Says hello to a leader; empty: waits for one. Until its welcome, nobody grants anything here."""
        now_s = self._loop.time()
        closures = self._closures()
        self._leave_lead()
        self._leader, self._epoch = leader, epoch
        hello = make_hello(self.room, self._policy.max_in_flight, epoch, self._beliefs.periods_s(), closures, now_s)
        self._remote = RemoteHome(epoch, lambda message: self._post.send(leader, message), self._loop.time)
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
            self._local, self._remote = self._make_local(), None
        self.state = State.COLLECTING
        self._epoch, self._leader = won.epoch, self.name
        self._lead = Lead(self.name, won.epoch, self.replicas, asked_at_s, self._bus, self.counts.shared)
        self._lead.on_end, self._lead.on_renewed = self._go_alone, self._on_renewed
        self._lead.on_ready = partial(self._open, self._lead)
        self.room.on_own_grant = self._lead.note_grant
        self._beliefs.note_kept(won, self._loop.time())
        self.counts.note_kept(won)
        self._rush_beat()

    def _open(self, lead: Lead) -> None:
        """Begins to decide for all replicas that said hello."""
        if self._stopped or lead is not self._lead or lead.host is not None:
            return
        self._local = self._make.leading(self._policy, self._beliefs, self.room.log, self._local.gate)
        self._beliefs.leader_log = GrantLog()
        self.state = State.LEADING
        lead.open(self._local, self._policy, self._post.send)
        self.room.move(self._local, self._epoch)
        self._local.room.poll()
        self.room.valid_until_s = lead.valid_until_s
        self._rush_beat()
        self._coordinated.set()
        self._changed("this replica leads")

    # --- time ---------------------------------------------------------------------------------------

    def _rush_beat(self) -> None:
        """Lets the next beat come at once, or in a moment if this replica must campaign first."""
        if self._beater is not None and not self._stopped:
            self._beater.cancel()
            wait_s = self._campaign.pause_s() if self._seeks_lease else 0.0
            self._beater = self._loop.call_later(wait_s, self._beat)

    def _beat(self) -> None:
        now_s = self._loop.time()
        wait_s = BEAT_S
        if self._lead is not None:
            self._lead.beat()
            wait_s = GATHER_BEAT_S if self._lead.gathers else BEAT_S
            self.replicas = self._lead.replicas
            self._silence.watch()
        elif self._seeks_lease:
            wait_s = self._campaign.pause_s()
            self._campaign.run(self._epoch)
        elif self._beat_heard_at_s + BEATS_MISSED * BEAT_S < now_s:
            self._go_alone("the leader is silent")
            return
        elif self._alive_at_s + _ALIVE_EACH_S <= now_s and self._remote is not None and self._remote.joined:
            self._alive_at_s = now_s
            self._post.send(self._leader, make_alive(self.room, self._remote))
        self.room.expire(now_s)
        self._beater = self._loop.call_later(wait_s, self._beat)

    # --- the lease ----------------------------------------------------------------------------------

    def _on_renewed(self, valid_until_s: float) -> None:
        self._silence.heard()
        if self.state is State.LEADING:
            self.room.valid_until_s = valid_until_s

    # --- messages -----------------------------------------------------------------------------------

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
        elif self.counts.hear(message):
            return
        elif epoch < self._epoch or (epoch > self._epoch and what != "resign"):
            return  # of an earlier leader, or of a later one that we have not heard yet
        elif what == "resign":
            self._on_resign(sender, epoch, message, now_s)
        elif self._lead is not None:
            self.counts.on_message(what, sender)
            self._lead.on_message(what, message | {"from": sender}, now_s)
        elif self._remote is not None and sender == self._leader:
            self._silence.heard()
            if what == "welcome":
                self._on_welcome()
            elif what == "who":
                self._join(self._leader, self._epoch)
            elif self._remote.joined:
                self._remote.answer(message)

    def _on_welcome(self) -> None:
        if self._remote is not None and not self._remote.joined:
            self.state = State.FOLLOWING
            self.room.told(self._epoch)
            self._remote.join()
            self._silence.watch()
            self._coordinated.set()
            self._changed("a leader decides")

    def _on_beat(self, sender: str, epoch: int, message: Message, now_s: float) -> None:
        if sender == self.name:
            if self._lead is not None and self._lead.epoch == epoch:
                self._lead.own_beat_heard()
            return
        if epoch < self._epoch:
            return
        if message.get("gathers"):
            if not self._seeks_lease:
                self._go_alone("another replica begins to lead")
            self._epoch = epoch
            self._post.send(sender, {"t": "here"})
            return
        self._beat_heard_at_s = now_s
        self.replicas = max(2, int(message["replicas"]))  # the leader, and this replica
        follows = self._remote is not None and self._remote.epoch == epoch and self._leader == sender
        self._beliefs.note_beat(message, now_s, is_of_known_leader=follows)
        if not follows:
            self._join(sender, epoch)

    def _on_resign(self, sender: str, epoch: int, message: Message, now_s: float) -> None:
        if sender == self._leader and sender != self.name:
            self._beliefs.note_leader_grants(message["log"], now_s)
            self.replicas = max(1, self.replicas - 1)
            self._join("", epoch)
            self._rush_beat()
