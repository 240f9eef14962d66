"""A replica's time as the leader: its lease, its beats, and from the hellos on the gate for all.

| state | event | next state |
|---|---|---|
| GATHERING: beats ask which replicas are here | all that live are, or `GATHER_S` is over | COLLECTING |
| COLLECTING: beats ask for hellos | all that are here said hello, or `COLLECT_S` is over | `on_ready`: OPEN |
| OPEN, after `open`: the host decides for all members | | |
| COLLECTING, OPEN | replicas with another version of the protocol are here | ended, as below |
| all | the lease is lost | ended: `on_end` is called with the reason |
| COLLECTING | a defect keeps it from opening | `on_unfit` is called: ended, and the lease is given back |
| all | Redis does not renew the lease, or tell the beat | `on_unfit` |
| all | Redis confirms beats and delivers nothing | `is_deaf`: `position.py` ends it, and gives the lease back |
| all | Redis delivers `MOST_LATE` beats in a row late to this replica | `on_unfit` |

A leader that hears nothing, or hears late, would grant only to itself, and its beats would keep all others from
the lead.

While this replica gathers, each replica still uses its share. If it opened at once, a replica that reaches Redis
half a second later would use its share on top of all that the leader grants.

While replicas with another version of the protocol are here, this replica only gathers. So each replica of both
versions uses its share, and nobody learns from 429s that the other version has caused.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import orjson

from nanonets_proxy.admission.fleet.beliefs import Beliefs, Grant, OwnGrants, ToTell
from nanonets_proxy.admission.fleet.bus.messages import MAX_REPLICAS
from nanonets_proxy.admission.fleet.bus.port import EVERYBODY, LATE, Bus, BusError, Won
from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.host import Host
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.ratelimit.fleet.lates import Lates
from nanonets_proxy.core.ratelimit.fleet.share import leader_policy
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
    from nanonets_proxy.admission.fleet.homes.local_home import LocalHome
    from nanonets_proxy.admission.fleet.homes.remote_home import Message

GATHER_S: Final = 0.7
"""A replica that lives is connected again by then. A dead one holds up the others for so long."""
COLLECT_S: Final = 0.15
LEASE_VALID_S: Final = 0.8
"""A leader decides for this long after it asked for its lease, which lasts for 1 s."""
OTHER_VERSION: Final = "replicas with another version of the protocol are here"
DEAF: Final = "this replica hears nothing from Redis, not even its own beats"
_OF_MEMBERS: Final = frozenset({"ask", "end", "sent", "unanswered", "leave", "cost", "advice", "alive", "bye"})
_REPLICAS_KEPT_S: Final = 2.0  # a replica that is away for less still counts, or all shares would be too large


class Lead:
    """The leader's part. Until `open`, only the lease and the beats."""

    def __init__(
        self,
        name: str,
        won: Won,
        replicas: int,
        gone: int,
        asked_at_s: float,
        bus: Bus,
        beliefs: Beliefs,
        counts: SharedCounts,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`asked_at_s`: when the lease was asked for. `replicas`: of the fleet then; `gone` of them have ended."""
        self.epoch = won.epoch
        self.replicas = replicas
        self.others = won.others
        """How many replicas with another version of the protocol are here."""
        self.valid_until_s = asked_at_s + LEASE_VALID_S
        self.host: Host | None = None
        """Set by `open`."""
        self.on_end: Callable[[str], None] = lambda _: None
        """Called with the reason when the lease is lost."""
        self.on_unfit: Callable[[str], None] = lambda _: None
        """Called with the reason when this replica has the lease, and cannot lead."""
        self.on_renewed: Callable[[float], None] = lambda _: None
        """Called after each renewal with the instant until which the leader may decide."""
        self.on_ready: Callable[[], None] = lambda: None
        """Called when it is time to `open`."""
        self.own_log: Callable[[], list[Grant]] = list
        """Returns the grants to this replica's own requests that may still count."""
        self.gathers = True
        self._name = name
        self._bus = bus
        self._beliefs = beliefs
        self._counts = counts
        self._loop = loop
        self._to_tell: ToTell | None = None
        self._own_grants: OwnGrants | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._has_ended = False  # from then on, this object changes nothing, whatever arrives late
        self._beat_is_out = False  # whether no message has arrived since our own beat went out
        self.is_deaf = False
        """Whether Redis has confirmed a beat, and no message has arrived since: our own beat did not come back."""
        self._late_renewals = Lates()
        self._late_back = Lates()  # own beats that came back
        self._beat_again = False  # whether another beat must follow the one that is underway
        self._most_replicas_at_s = asked_at_s
        self._awaited = replicas - 1 - gone
        self._here: dict[str, float] = {}  # when each replica said so
        self._hellos: dict[str, Message] = {}  # before `open`, by replica
        self._timer = self._loop.call_later(GATHER_S if self._awaited > 0 else 0.0, self._collect)

    def _collect(self) -> None:
        """Asks the replicas that are here for their hellos."""
        if self.others:
            return
        self.gathers = False
        self._timer.cancel()
        self._timer = self._loop.call_later(COLLECT_S, self._on_all_said)
        self._beat_again = True
        self.beat()

    def _on_all_said(self) -> None:
        self._timer.cancel()
        try:
            self.on_ready()
        except Exception:
            self.on_unfit("a defect kept this replica from its lead")  # half a leader would keep others from it
            raise

    def open(self, home: "LocalHome", policy: GatePolicy, send: "Callable[[str, Message], None]") -> None:
        """Begins to decide, for the members that said hello so far."""
        self._to_tell = ToTell(home.gate, self._counts)
        self._own_grants = OwnGrants(lambda message: send(EVERYBODY, message), self._loop)
        self.host = Host(home, send, self._told_log)
        home.on_refused = self._beat_soon
        self.use(policy)
        now_s = self._loop.time()
        for hello in self._hellos.values():
            self.host.hello(hello, now_s)
        self._hellos.clear()

    def use(self, policy: GatePolicy) -> None:
        """Applies the policy of this replica, and the number of members, to the gate for all."""
        if self.host is None or self._to_tell is None:
            return
        self._count(len(self.host.members))
        self.host.most_waiting = policy.max_waiting
        self._to_tell.repeat()
        self.host.on_members = lambda: self.use(policy)
        places = self.host.places + policy.max_in_flight
        self.host.home.room.change_policy(leader_policy(policy, places, self.replicas))

    def _count(self, members: int) -> None:
        """Notes how many replicas of this fleet are here, besides this one."""
        count, now_s = members + 1, self._loop.time()
        if count >= self.replicas or self._most_replicas_at_s + _REPLICAS_KEPT_S < now_s:
            self.replicas, self._most_replicas_at_s = count, now_s

    def on_message(self, what: str, message: "Message", now_s: float) -> None:
        """Acts on a message of a member. Raises ValueError if there are more replicas than a fleet can have."""
        if self.host is None and len(self._here.keys() | self._hellos.keys() | {message["from"]}) >= MAX_REPLICAS:
            raise ValueError(f"a fleet has at most {MAX_REPLICAS} replicas")
        if what == "here" and self.gathers:
            self._here[message["from"]] = now_s
            if len(self._here) >= self._awaited:
                self._collect()
        elif what == "hello" and self.host is not None:
            self.host.hello(message, now_s)
        elif what == "hello" and not self.gathers:
            self._hellos[message["from"]] = message
            if self._here.keys() <= self._hellos.keys():
                self._on_all_said()
        elif what in _OF_MEMBERS and self.host is not None:
            self.host.handle(message, now_s)

    def is_new(self, what: str, name: str) -> bool:
        """Returns whether a message is the first of a replica, which may not know the counts of the others.

        While another version is here, no hello follows on `here`.
        """
        return what == "hello" or (what == "here" and self.others > 0 and name not in self._here)

    def _told_log(self) -> "list[Grant]":
        """Returns what a new member must know of this replica's own grants. Tells the others of the latest ones."""
        if self._own_grants is not None:
            self._own_grants.flush()
        self._note_limits()  # with the periods
        return self.own_log()

    def note_grant(self, claim: "OwnClaim") -> None:
        """Notes a grant to a request of this replica."""
        if self._own_grants is not None:
            self._own_grants.note(claim.scope, claim.granted_at_s, claim.cost)

    def beat(self) -> None:
        """Renews the lease and tells a beat, unless an earlier renewal is still on its way."""
        if self._has_ended:
            return
        if self.host is not None:
            self.host.expire(self._loop.time())
            replicas = self.replicas
            self._count(len(self.host.members))
            if self.replicas != replicas:
                self.host.on_members()
        elif self.others:
            since_s = self._loop.time() - _REPLICAS_KEPT_S
            self._here = {name: at_s for name, at_s in self._here.items() if at_s > since_s}
            self._count(len(self._here))
        if self._renewing is None:
            self._beat_again = False
            self._renewing = self._loop.create_task(self._renew())

    def _beat_soon(self) -> None:
        """Tells all replicas of a closure at once: each must know it if this leader dies."""
        if self._renewing is None:
            self.beat()
        else:
            self._beat_again = True

    @property
    def awaits_answer(self) -> bool:
        """Whether Redis has not yet answered the latest beat, or not yet delivered it to this replica."""
        return self._renewing is not None or self._beat_is_out

    def hears(self) -> bool:
        """Notes that a message has arrived: the subscription works. Returns whether no answer is due any more."""
        self._beat_is_out = self.is_deaf = False
        return self._renewing is None

    def came_back(self, took_s: float) -> None:
        """Notes how long one of its own beats took to come back."""
        if self._late_back.note(took_s):
            self.on_unfit(LATE)

    def note_beliefs(self) -> None:
        """Notes what this leader believes, if it decides."""
        if self.host is not None and not self._has_ended:
            self._note_limits()
            self._beliefs.note_own_use(self.host.home.gate, self.epoch, self._loop.time())

    def _note_limits(self) -> None:
        if self.host is not None and not self._has_ended:
            self._beliefs.note_own(self.host.home.gate, self.epoch, self.replicas, self._loop.time())

    def end(self) -> "Message":
        """Ends this time. Returns the last message, with the latest grants: the next leader counts them."""
        self._has_ended = True
        self._timer.cancel()
        untold = [] if self._own_grants is None else self._own_grants.take()
        self._own_grants = None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        return {"t": "resign", "log": untold}

    async def _renew(self) -> None:
        asked_at_s = self._loop.time()
        beat: Message = {"t": "beat", "replicas": self.replicas}
        if self.gathers:
            beat["gathers"] = True
            if self.others:
                beat |= {"others": self.others, "told": self._beliefs.told(asked_at_s)}
        keep = None
        if self._to_tell is not None:
            told, kept = self._to_tell.take(asked_at_s)
            beat |= told
            keep = None if kept is None else orjson.dumps(kept)
        self._beat_is_out = True
        others, reason, end = None, "another replica leads", self.on_end
        try:
            sealed = seal(self._name, self.epoch, asked_at_s, [beat])
            others = await self._bus.renew(self.epoch, self.replicas, sealed, keep)
        except BusError as error:  # another replica may be able to
            reason, end = str(error), self.on_unfit
        if self._has_ended:
            return
        self._renewing = None
        is_slow = self._late_renewals.note(self._loop.time() - asked_at_s)
        if others is None:
            end(reason)
        elif is_slow:
            self.on_end("Redis is slow")
        elif others and not self.gathers:
            self.others = others
            self.on_end(OTHER_VERSION)
        else:
            self.valid_until_s, self.is_deaf = asked_at_s + LEASE_VALID_S, self._beat_is_out
            self.on_renewed(self.valid_until_s)
            others_left, self.others = self.others and not others, others
            if others_left:
                self._collect()
            elif self._beat_again:
                self.beat()
