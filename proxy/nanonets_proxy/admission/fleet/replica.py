"""One replica of a fleet: hears the others, and decides which gate decides on its requests.

`state.py` has its states and transitions, and docs/fleet.md the whole protocol.
"""

import asyncio
import contextlib
import math
from typing import Final

from nanonets_proxy.admission.fleet.bus.port import EVERYBODY
from nanonets_proxy.admission.fleet.bus.post import deliver
from nanonets_proxy.admission.fleet.hello import make_alive
from nanonets_proxy.admission.fleet.homes.remote_home import Message
from nanonets_proxy.admission.fleet.lead import OTHER_VERSION
from nanonets_proxy.admission.fleet.state import BEAT_S, BEATS_MISSED, GATHER_BEAT_S, State
from nanonets_proxy.admission.fleet.transitions import Transitions
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

_ALIVE_EACH_S: Final = 0.5


class Replica(Transitions):
    """Call `start`, use `room`, then call `stop`."""

    async def start(self, patience_s: float) -> None:
        """Connects, and waits up to `patience_s` until a leader decides, or another version is here."""
        self._bus.start(self._on_data, self._go_alone, self._on_unheard)
        self._beater.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._met.wait(), patience_s)

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
        if self.state in (State.ALONE, State.COLLECTING):
            self.own.decide_alone(is_remote=False)

    @property
    def replicas(self) -> int:
        """How many replicas the fleet had when last heard of."""
        return self.own.replicas

    @property
    def shares_with_other_version(self) -> bool:
        """Whether no leader decides because replicas with another version of the protocol are here."""
        return self.own.others > 0 and self._bus.connected

    def gate(self) -> Gate:
        """Returns a gate that shows what is known of the limits. Only a local home's gate has tickets."""
        return self.own.home.gate if self._remote is None else self.own.shown()

    def _beat(self) -> float:
        now_s, wait_s = self._loop.time(), BEAT_S
        if self._lead is not None:
            self._lead.beat()
            wait_s = GATHER_BEAT_S if self._lead.gathers and not self._lead.others else BEAT_S
            self._share_with(self._lead.replicas, self._lead.others)
            self._silence.watch()
        elif self._seeks_lease:
            wait_s = self.campaign.pause_s()
            if not self.own.others or self._beat_heard_at_s + BEATS_MISSED * BEAT_S < now_s:
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
            if self._lead.is_new(what, sender):
                self.counts.tell_all(sender)
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
            self._met.set()
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
                self._go_alone(OTHER_VERSION if "others" in message else "another replica begins to lead")
            self.epoch = epoch
            self._post.send(sender, {"t": "here"})
            if "others" in message:
                self._on_other_version(message, now_s)
            return
        self._beat_heard_at_s, self.own.others = now_s, 0
        self.own.replicas = max(2, int(message["replicas"]))  # the leader, and this replica
        follows = self._remote is not None and self._remote.epoch == epoch and self._leader == sender
        self.beliefs.note_beat(message, epoch, now_s, is_of_known_leader=follows)
        if not follows:
            self._join(sender, epoch)

    def _on_other_version(self, message: Message, now_s: float) -> None:
        if self.state is State.JOINING:
            self._go_alone(OTHER_VERSION)
        self._beat_heard_at_s = now_s
        if not self.beliefs.snapshots:
            self.beliefs.hear(message["told"], now_s)
        self._share_with(int(message["replicas"]), int(message["others"]))

    def _on_resign(self, sender: str, epoch: int, message: Message, now_s: float) -> None:
        if sender == self._leader and sender != self.name:
            self.beliefs.note_leader_grants(message["log"], now_s)
            if self.own.others:  # this replica decides already
                self._beat_heard_at_s = -math.inf
            else:
                self.own.replicas = max(1, self.own.replicas - 1)
                self._join("", epoch)
            self._rush_beat()
