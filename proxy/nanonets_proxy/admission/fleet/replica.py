"""One replica of a fleet: which gate decides on its requests, and when that changes (docs/fleet.md).

| state | decides | event | next state |
|---|---|---|---|
| ALONE | this replica's gate, with its share | the beat of a leader | JOINING |
| | | the lease is won | COLLECTING |
| JOINING | nobody: requests wait | the leader's welcome | FOLLOWING |
| | | no welcome in `JOIN_TICKS` | ALONE |
| FOLLOWING | the leader | silent for `SILENT_TICKS` with a question open, or for `BEATS_MISSED` | ALONE |
| | | the beat of a leader with a later epoch, or `who` | JOINING |
| COLLECTING | as ALONE | `COLLECT_S` is over, or all replicas said hello | LEADING |
| LEADING | this replica's gate, for all | the lease is lost, or Redis is silent for `SILENT_TICKS` | ALONE |
| | | the beat of a leader with a later epoch | JOINING |
| any | | the connection to Redis is lost | ALONE |

Silence is counted in ticks of this process's own event loop, not by the clock: if the loop itself stood still, the
answer may be here already, unread.

A leader decides only until `LEASE_VALID_S` after it last asked for its lease: a process that was stopped for long
finds that out before its next decision.
"""

import asyncio
import contextlib
import enum
import math
from typing import TYPE_CHECKING, Final

import orjson
import structlog

from nanonets_proxy.admission.fleet.beliefs import Beliefs, ToTell
from nanonets_proxy.admission.fleet.bus import EVERYBODY, Bus, BusError, Won
from nanonets_proxy.admission.fleet.homes import HomeMaker
from nanonets_proxy.admission.fleet.host import Host
from nanonets_proxy.admission.fleet.post import Post, seal, unseal
from nanonets_proxy.admission.fleet.remote_home import Message, RemoteHome
from nanonets_proxy.admission.fleet.room import FleetRoom
from nanonets_proxy.admission.fleet.silence import Silence
from nanonets_proxy.core.ratelimit.fleet.grant_log import GrantLog
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.fleet.share import leader_policy, share_policy
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT_S: Final = 0.25
LEASE_S: Final = 1.0
LEASE_VALID_S: Final = 0.8
SILENT_TICKS: Final = 5
JOIN_TICKS: Final = 20
COLLECT_S: Final = 0.06
BEATS_MISSED: Final = 4
_ALIVE_EACH_S: Final = 0.5
_CAMPAIGN_S: Final = (0.03, 0.12)
_REPLICAS_KEPT_S: Final = 2.0  # a replica that is away for less still counts, or all shares would be too large


class State(enum.Enum):
    """The states of a replica."""

    ALONE = "alone"
    JOINING = "joining"
    FOLLOWING = "following"
    COLLECTING = "collecting"
    LEADING = "leading"


_LEADER_STATES = (State.COLLECTING, State.LEADING)


class Replica:
    """Call `start`, use `room`, then call `stop`."""

    def __init__(
        self,
        name: str,
        policy: GatePolicy,
        names: Names,
        bus: Bus,
        make: HomeMaker,
    ) -> None:
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
        self._log = structlog.get_logger()
        self._beliefs = Beliefs(loop.time())
        self._leader = ""
        self._epoch = 0
        self._beat_heard_at_s = -math.inf
        self._most_replicas_at_s = -math.inf
        self._alive_at_s = -math.inf
        self._silence = Silence(loop, self._most_silence, self._on_silence)
        self._beater: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._campaigning: asyncio.Task[None] | None = None
        self._beat_is_out = False  # whether our own beat has not come back yet
        self._hellos: dict[str, Message] = {}
        self._collector: asyncio.TimerHandle | None = None
        self._post = Post(name, bus, loop, lambda: self._epoch)
        self._stopped = False
        self._coordinated = asyncio.Event()  # set once a leader decides, for the start
        self._remote: RemoteHome | None = None
        self._host: Host | None = None
        self._to_tell: ToTell | None = None  # while this replica leads
        self._local = make.alone(policy, self._beliefs, 1, GrantLog())
        self.room = FleetRoom(policy, names, self._local, loop)
        self.room.on_stale = lambda: self._go_alone("the process stood still for too long")
        self.room.on_ask = self._silence.watch
        self.room.on_own_grant = lambda claim: self._note_own_grant(claim.scope, claim.granted_at_s, claim.cost)

    # --- life ---------------------------------------------------------------------------------------

    async def start(self, patience_s: float) -> None:
        """Connects, and waits up to `patience_s` until a leader decides."""
        self._bus.start(self._on_data, self._on_lost)
        self._beat()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._coordinated.wait(), patience_s)

    async def stop(self) -> None:
        """Says goodbye. The claims of this replica must have ended."""
        self._stopped = True
        self._silence.stop()
        for timer in (self._beater, self._collector):
            if timer is not None:
                timer.cancel()
        for task in (self._renewing, self._campaigning):
            if task is not None:
                task.cancel()
        if self.state in _LEADER_STATES:
            self._post.flush()
            await self._bus.resign(self._epoch)
            self._post.send(EVERYBODY, {"t": "resign"})
        elif self._leader:
            self._post.send(self._leader, {"t": "bye"})
        self._post.flush()
        await self._bus.stop()

    @property
    def is_coordinated(self) -> bool:
        """Whether one gate decides for the whole fleet, as far as this replica knows."""
        return self.state in (State.FOLLOWING, State.LEADING)

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy."""
        self._policy = policy
        self.room.change_policy(policy)
        if self.state is State.LEADING:
            self._on_members()
        else:
            self._local.room.change_policy(share_policy(policy, self._beliefs.snapshots, self.replicas))

    def gate(self) -> Gate:
        """Returns a gate that shows what is known of the limits. Only a local home's gate has tickets."""
        if self._remote is None:
            return self._local.gate
        gate, now_s = Gate(self._policy, self._make.jitter), self._loop.time()
        gate.scopes.restore(self._beliefs.snapshots, now_s, self._beliefs.age_s(now_s))
        return gate

    # --- states -------------------------------------------------------------------------------------

    def _go_alone(self, reason: str) -> None:
        if self.state is State.ALONE:
            return
        self._leave_lead()
        self._remote = None
        self.state = State.ALONE
        self.room.valid_until_s = math.inf
        self._local = self._make.alone(self._policy, self._beliefs, self.replicas, self.room.log)
        self.room.move(self._local, 0)
        self._local.room.refresh()
        self._rush_beat()
        self.on_change(reason)

    def _leave_lead(self) -> None:
        """Ends what only a leader has."""
        if self._host is not None:
            now_s = self._loop.time()
            self._beliefs.note(self._host.home.gate.scopes.snapshots(now_s), 0.0, now_s)
            self._host = self._to_tell = None
        self._hellos.clear()
        self._beat_is_out = False
        if self._collector is not None:
            self._collector.cancel()
            self._collector = None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    def _join(self, leader: str, epoch: int) -> None:
        """Says hello to a leader. Until its welcome, nobody grants anything here."""
        now_s = self._loop.time()
        closures = dict(self._local.gate.scopes.closed(now_s)) if self._remote is None else {}
        self._leave_lead()
        self._leader, self._epoch = leader, epoch
        ages = self.room.log.ages(now_s, epoch, self._beliefs.periods_s())
        scopes = {
            scope: [ages.get(scope, []), max(0.0, closures.get(scope, now_s) - now_s)]
            for scope in {*ages, *closures}
        }
        held = [
            [c.number, c.scope, c.lane, c.deadline_s - now_s, c.cost, now_s - c.granted_at_s]
            for c in self.room.held()
        ]
        hello = {"t": "hello", "places": self._policy.max_in_flight, "scopes": scopes, "held": held}
        self._remote = RemoteHome(epoch, lambda message: self._post.send(leader, message), self._loop.time)
        self.state = State.JOINING
        self.room.valid_until_s = math.inf
        self.room.move(self._remote, epoch)
        self._post.send(leader, hello)
        self._silence.watch()

    def _collect(self, won: Won) -> None:
        """Begins to lead: asks all replicas for their hello."""
        self._leave_lead()
        self.state = State.COLLECTING
        self._epoch, self._leader = won.epoch, self.name
        if won.kept and not self._beliefs.snapshots:
            self._note_kept(won)
        self._rush_beat()
        self._collector = self._loop.call_later(COLLECT_S, self._lead)

    def _lead(self) -> None:
        """Begins to decide for all replicas that said hello."""
        now_s = self._loop.time()
        hellos, self._hellos = self._hellos, {}
        if self._collector is not None:
            self._collector.cancel()
            self._collector = None
        self._local = self._make.leading(self._policy, self._beliefs, self.room.log, self._local.gate)
        self._beliefs.leader_log = GrantLog()
        self._to_tell = ToTell(self._local.gate)
        self._host = host = Host(self._local, self._post.send, self._on_members)
        self.state = State.LEADING
        for hello in hellos.values():
            host.hello(hello, now_s)
        self.room.move(self._local, self._epoch)
        self._on_members()
        self._rush_beat()
        self._coordinated.set()
        self.on_change("this replica leads")

    def _on_members(self) -> None:
        """Applies the number of members to the gate."""
        if self._host is not None:
            count, now_s = len(self._host.members) + 1, self._loop.time()
            if count >= self.replicas or self._most_replicas_at_s + _REPLICAS_KEPT_S < now_s:
                self.replicas, self._most_replicas_at_s = count, now_s
            if self._to_tell is not None:
                self._to_tell.repeat()
            places = self._host.places + self._policy.max_in_flight
            self._local.room.change_policy(leader_policy(self._policy, places, self.replicas))

    # --- time ---------------------------------------------------------------------------------------

    def _rush_beat(self) -> None:
        """Lets the next beat come at once, or in a moment if this replica must campaign first."""
        if self._beater is not None and not self._stopped:
            self._beater.cancel()
            least_s, most_s = _CAMPAIGN_S
            wait_s = least_s + (most_s - least_s) * self._make.jitter() if self.state is State.ALONE else 0.0
            self._beater = self._loop.call_later(wait_s, self._beat)

    def _beat(self) -> None:
        now_s = self._loop.time()
        wait_s = BEAT_S
        match self.state:
            case State.COLLECTING | State.LEADING:
                if self._host is not None:
                    self._host.expire(now_s)
                    if len(self._host.members) + 1 != self.replicas:
                        self._on_members()
                if self._renewing is None:
                    self._renewing = self._loop.create_task(self._renew())
                    self._silence.watch()
            case State.FOLLOWING | State.JOINING:
                if self._beat_heard_at_s + BEATS_MISSED * BEAT_S < now_s:
                    self._go_alone("the leader is silent")
                    return
                if self._alive_at_s + _ALIVE_EACH_S <= now_s:
                    self._alive_at_s = now_s
                    self._post.send(self._leader, {"t": "alive"})
            case State.ALONE:
                least_s, most_s = _CAMPAIGN_S
                wait_s = least_s + (most_s - least_s) * self._make.jitter()
                if self._bus.connected and self._campaigning is None:
                    self._campaigning = self._loop.create_task(self._campaign())
        self.room.expire(now_s)
        self._beater = self._loop.call_later(wait_s, self._beat)

    def _most_silence(self) -> int | None:
        """Returns how many ticks of silence are too many now; None: no answer is due."""
        if self.state is State.ALONE:
            return None
        if self._remote is None:
            return SILENT_TICKS if self._renewing is not None or self._beat_is_out else None
        if not self._remote.joined:
            return JOIN_TICKS
        return SILENT_TICKS if self._remote.asked else None

    def _on_silence(self) -> None:
        self._go_alone("no answer from Redis" if self._remote is None else "no answer from the leader")

    # --- the lease ----------------------------------------------------------------------------------

    async def _campaign(self) -> None:
        try:
            won = await self._bus.campaign(self._epoch)
        except BusError:
            return
        finally:
            self._campaigning = None
        if won is not None and self.state is State.ALONE and not self._stopped:
            self._collect(won)

    async def _renew(self) -> None:
        epoch, asked_at_s = self._epoch, self._loop.time()
        beat, keep = self._make_beat(asked_at_s)
        self._beat_is_out = True
        renewed, reason = False, "another replica leads"
        try:
            renewed = await self._bus.renew(epoch, beat, keep)
        except BusError as error:
            reason = str(error)
        finally:
            if self._renewing is asyncio.current_task():
                self._renewing = None
        if self._epoch != epoch or self.state not in _LEADER_STATES:
            return
        if not renewed:
            self._go_alone(reason)
            return
        self._silence.heard()
        if self.state is State.LEADING:
            self.room.valid_until_s = asked_at_s + LEASE_VALID_S

    def _make_beat(self, now_s: float) -> tuple[bytes, bytes | None]:
        """Returns the beat, and what Redis must keep; None: what it keeps is still true."""
        beat: Message = {"t": "beat", "replicas": self.replicas}
        keep = None
        if self._to_tell is not None:
            told, kept = self._to_tell.take(now_s)
            beat |= told
            keep = None if kept is None else orjson.dumps(kept)
        return seal(self.name, self._epoch, [beat]), keep

    def _note_own_grant(self, scope: str, granted_at_s: float, cost: float) -> None:
        if self._to_tell is not None:
            self._to_tell.note_grant(scope, granted_at_s, cost)

    # --- messages -----------------------------------------------------------------------------------

    def _on_lost(self, reason: str) -> None:
        self._go_alone(reason)

    def _on_data(self, data: bytes) -> None:
        if self._stopped:
            return
        if self._loop.time() > self.room.valid_until_s:
            self.room.on_stale()
        try:
            envelope = unseal(data)
            for message in envelope.messages:
                self._on_message(envelope.sender, envelope.epoch, message)
        except (ValueError, KeyError, TypeError) as error:
            self._log.warning("fleet_message_invalid", reason=f"{type(error).__name__}: {error}"[:200])

    def _on_message(self, sender: str, epoch: int, message: Message) -> None:
        what, now_s = message["t"], self._loop.time()
        if what == "beat":
            self._on_beat(sender, epoch, message, now_s)
        elif epoch < self._epoch or (epoch > self._epoch and what != "resign"):
            return  # of an earlier leader, or of a later one that we have not heard yet
        elif what == "resign":
            self._on_resign(sender)
        elif what in ("hello", "ask", "end", "leave", "cost", "advice", "alive", "bye"):
            message["from"] = sender
            if self.state is State.COLLECTING and what == "hello":
                self._hellos[sender] = message
                if len(self._hellos) >= self.replicas - 1:
                    self._lead()
            elif self._host is not None and what == "hello":
                self._host.hello(message, now_s)
            elif self._host is not None:
                self._host.handle(message, now_s)
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
            self.on_change("a leader decides")

    def _on_beat(self, sender: str, epoch: int, message: Message, now_s: float) -> None:
        if sender == self.name:
            if epoch == self._epoch:
                self._beat_is_out = False
            return
        if epoch < self._epoch:
            return
        self._beat_heard_at_s = now_s
        self.replicas = max(2, int(message["replicas"]))  # the leader, and this replica
        if "beliefs" in message:
            self._beliefs.note_document(message["beliefs"], 0.0, now_s)
        if self._remote is not None and self._remote.epoch == epoch and self._leader == sender:
            self._beliefs.note_leader_grants(message.get("log", ()), now_s)
            return
        self._beliefs.leader_log = GrantLog()
        self._join(sender, epoch)

    def _on_resign(self, sender: str) -> None:
        if sender == self._leader and sender != self.name:
            self._beat_heard_at_s = -math.inf
            self._go_alone("the leader stops")

    def _note_kept(self, won: Won) -> None:
        """Notes what the last leader kept in Redis. Ignores what is no document of this version."""
        try:
            self._beliefs.note_document(orjson.loads(won.kept), won.kept_age_s, self._loop.time(), with_grants=True)
        except ValueError as error:
            self._log.warning("fleet_message_invalid", reason=str(error)[:200])
