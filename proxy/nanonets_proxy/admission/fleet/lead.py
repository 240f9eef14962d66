"""A replica's time as the leader: its lease, its beats, and from the hellos on the gate for all.

| state | event | next state |
|---|---|---|
| COLLECTING: beats ask for hellos | `open` | OPEN: the host decides for all members |
| both | the lease is lost, or Redis refuses to renew it | ended: `on_end` is called with the reason |
"""

import asyncio
from typing import TYPE_CHECKING, Final

import orjson

from nanonets_proxy.admission.fleet.beliefs import ToTell
from nanonets_proxy.admission.fleet.bus.port import Bus, BusError
from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.host import Host
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.ratelimit.fleet.share import leader_policy
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
    from nanonets_proxy.admission.fleet.homes.local_home import LocalHome
    from nanonets_proxy.admission.fleet.homes.remote_home import Message

LEASE_VALID_S: Final = 0.8
"""A leader decides for this long after it asked for its lease, which lasts for 1 s."""
_OF_MEMBERS: Final = frozenset({"ask", "end", "leave", "cost", "advice", "alive", "bye"})
_REPLICAS_KEPT_S: Final = 2.0  # a replica that is away for less still counts, or all shares would be too large


class Lead:
    """The leader's part. Until `open`, only the lease and the beats."""

    def __init__(
        self, name: str, epoch: int, replicas: int, asked_at_s: float, bus: Bus, counts: SharedCounts
    ) -> None:
        """The lease was asked for at `asked_at_s`, while the fleet had so many `replicas`."""
        self.epoch = epoch
        self.replicas = replicas
        self.valid_until_s = asked_at_s + LEASE_VALID_S
        self.host: Host | None = None
        """Set by `open`."""
        self.on_end: Callable[[str], None] = lambda _: None
        """Called with the reason when the lease is lost."""
        self.on_renewed: Callable[[float], None] = lambda _: None
        """Called after each renewal with the instant until which the leader may decide."""
        self.hellos: dict[str, Message] = {}
        """The hellos before `open`, by replica."""
        self._name = name
        self._bus = bus
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._to_tell: ToTell | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._beat_is_out = False  # whether our own beat has not come back yet
        self._most_replicas_at_s = asked_at_s

    def open(self, home: "LocalHome", policy: GatePolicy, send: "Callable[[str, Message], None]") -> None:
        """Begins to decide, for the members that said hello so far."""
        self._to_tell = ToTell(home.gate, self._counts)
        self.host = Host(home, send)
        self.host.on_members = lambda: self.use(policy)
        now_s = self._loop.time()
        for hello in self.hellos.values():
            self.host.hello(hello, now_s)
        self.hellos.clear()
        self.use(policy)

    def use(self, policy: GatePolicy) -> None:
        """Applies the policy of this replica, and the number of members, to the gate for all."""
        if self.host is None or self._to_tell is None:
            return
        count, now_s = len(self.host.members) + 1, self._loop.time()
        if count >= self.replicas or self._most_replicas_at_s + _REPLICAS_KEPT_S < now_s:
            self.replicas, self._most_replicas_at_s = count, now_s
        self._to_tell.repeat()
        self.host.on_members = lambda: self.use(policy)
        places = self.host.places + policy.max_in_flight
        self.host.home.room.change_policy(leader_policy(policy, places, self.replicas))

    def on_message(self, what: str, message: "Message", now_s: float) -> None:
        """Acts on a message of a member. Raises ValueError, KeyError or TypeError if it is malformed."""
        if what == "hello" and self.host is None:
            self.hellos[message["from"]] = message
        elif what == "hello" and self.host is not None:
            self.host.hello(message, now_s)
        elif what in _OF_MEMBERS and self.host is not None:
            self.host.handle(message, now_s)

    def note_grant(self, claim: "OwnClaim") -> None:
        """Notes a grant to a request of this replica."""
        if self._to_tell is not None:
            self._to_tell.note_grant(claim.scope, claim.granted_at_s, claim.cost)

    def beat(self) -> None:
        """Renews the lease and tells a beat, unless an earlier renewal is still on its way."""
        if self.host is not None:
            self.host.expire(self._loop.time())
            if len(self.host.members) + 1 != self.replicas:
                self.host.on_members()
        if self._renewing is None:
            self._renewing = self._loop.create_task(self._renew())

    @property
    def awaits_answer(self) -> bool:
        """Whether Redis has not yet answered the latest beat, or not yet delivered it to this replica."""
        return self._renewing is not None or self._beat_is_out

    def own_beat_heard(self) -> None:
        """Notes that our own beat has come back: the subscription works."""
        self._beat_is_out = False

    def end(self) -> None:
        """Ends this time."""
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    async def _renew(self) -> None:
        asked_at_s = self._loop.time()
        beat: Message = {"t": "beat", "replicas": self.replicas}
        keep = None
        if self._to_tell is not None:
            told, kept = self._to_tell.take(asked_at_s)
            beat |= told
            keep = None if kept is None else orjson.dumps(kept)
        self._beat_is_out = True
        renewed, reason = False, "another replica leads"
        try:
            renewed = await self._bus.renew(self.epoch, seal(self._name, self.epoch, [beat]), keep)
        except BusError as error:
            reason = str(error)
        self._renewing = None
        if renewed:
            self.valid_until_s = asked_at_s + LEASE_VALID_S
            self.on_renewed(self.valid_until_s)
        else:
            self.on_end(reason)
