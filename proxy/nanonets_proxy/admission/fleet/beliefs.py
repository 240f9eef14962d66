"""What a replica knows of the fleet's limits: the beliefs that beats tell, and the leader's own grants.

A document of beliefs has the form of the state file. A beat leaves its grants out: each replica tells its own log
in its hello. A beat only sums up what is used of each limit (`use`), for replicas that lose the leader. Redis keeps
a document with the grants, and the counts of `daily_budget`, for a fleet that starts again as a whole.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
import structlog

from nanonets_proxy.admission.fleet.bus.port import Won
from nanonets_proxy.admission.fleet.homes.remote_home import Message
from nanonets_proxy.core.access.shared_counts import SharedCounts
from nanonets_proxy.core.ratelimit.fleet.believer import Believer
from nanonets_proxy.core.ratelimit.fleet.grant_log import MAX_SCOPES, GrantLog
from nanonets_proxy.core.ratelimit.fleet.use import FleetUse, summarize
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, dump, load

NAME: Final = "fleet"
"""Where the state file names its upstream."""
_KEEP_EACH_S: Final = 1.0
_TELL_AFTER_S: Final = 0.02
_MAX_TOLD_GRANTS: Final = 200

Document = dict[str, Any]
Grant = tuple[str, float, float]
"""Scope, age and cost."""
Told = tuple[int, float, list[ScopeSnapshot], int, float]
"""The epoch of a leader, how old its beliefs are, the beliefs, its replicas, and how long ago it was heard."""


class Beliefs:
    """The latest beliefs, and when they were true."""

    def __init__(self, now_s: float) -> None:
        self.snapshots: list[ScopeSnapshot] = []
        self.at_s = now_s
        self.of = Believer(heard_at_s=now_s)
        """The leader that believed this."""
        self.leader_log = GrantLog()
        """What the leader granted to itself, as it tells: if it dies, nobody else knows."""
        self.use = FleetUse()
        """What the fleet has used of each limit."""
        self._ignored = b""
        """The latest limits in Redis that could not be read. A replica may take the lease again and again."""
        self._refused_until_s: dict[str, float] = {}  # by the hints of own 429s, since the leader's latest beat

    def note_document(self, document: object, age_s: float, now_s: float, *, with_grants: bool = False) -> None:
        """Notes beliefs that are `age_s` old. Raises ValueError if it is no such document."""
        snapshots, _ = load(document, NAME, 0.0)
        self.note(snapshots, age_s, now_s, with_grants=with_grants)

    def note(
        self, snapshots: list[ScopeSnapshot], age_s: float, now_s: float, *, with_grants: bool = False
    ) -> None:
        """Notes beliefs that are `age_s` old, without their grants unless `with_grants`."""
        self.snapshots = snapshots if with_grants else list(map(_without_grants, filter(_is_known, snapshots)))
        self.at_s = now_s - age_s

    def note_own(self, gate: Gate, epoch: int, replicas: int, now_s: float) -> None:
        """Notes what this replica's gate believes, as the leader of `epoch` and of so many replicas."""
        self.note(gate.scopes.snapshots(now_s), 0.0, now_s)
        self.of = Believer(epoch, replicas, now_s)

    def note_own_use(self, gate: Gate, epoch: int, now_s: float) -> None:
        """Notes what the fleet has used, as its leader. This looks at each grant of the present periods."""
        for snapshot in self.snapshots:
            if snapshot.count is not None:
                self.use.note(snapshot.scope, _use(gate, snapshot.scope, now_s), epoch, now_s)

    def told(self, now_s: float) -> tuple[int, float, Document, int, float]:
        """Returns what `hear` gets, with a document: a new leader may know less than this replica."""
        document = dump(map(_without_grants, self.snapshots[:MAX_SCOPES]), NAME, 0.0)
        return self.of.epoch, self.age_s(now_s), document, self.of.replicas, max(0.0, now_s - self.of.heard_at_s)

    def hear(self, told: Told, now_s: float, before_epoch: int) -> bool:
        """Notes what another replica tells, if it counts before what is known here, or if nothing is known here.

        Returns whether it does.

        A replica that has just started knows nothing, which never counts. No leader before the present one can
        have had `before_epoch` or a later one, so such beliefs count only if nothing is known here.
        """
        epoch, age_s, snapshots, replicas, heard_ago_s = told
        of = Believer(epoch, replicas, now_s - heard_ago_s)
        if epoch >= before_epoch:
            counts, of = False, Believer(0, replicas, of.heard_at_s)
        elif epoch == self.of.epoch:
            counts = age_s < self.age_s(now_s)
        else:
            counts = of.counts_before(self.of)
        if not snapshots or (self.snapshots and not counts):
            return False
        self.note(snapshots, age_s, now_s)
        self.of = of
        return True

    def note_kept(self, won: Won, now_s: float) -> None:
        """Notes what the last leader kept in Redis, if nothing is known yet. Ignores what it cannot read."""
        if not self.snapshots and won.kept:
            try:
                self.note_document(orjson.loads(won.kept)["limits"], won.kept_age_s, now_s, with_grants=True)
            except (ValueError, KeyError, TypeError) as error:
                if won.kept != self._ignored:
                    reason = f"{type(error).__name__}: {error}"[:200]
                    structlog.get_logger().warning("fleet_limits_ignored", reason=reason)
                self._ignored = won.kept

    def note_leader_grants(self, grants: Any, now_s: float) -> None:
        """Notes what a leader has granted to itself, as (scope, age, cost)."""
        for scope, age_s, cost in grants:
            self.leader_log.add(scope, now_s - age_s, cost, 0)

    def note_refusal(self, scope: str, until_s: float) -> None:
        """Notes a 429 to a request of this replica: a leader that dies may have told nobody of it."""
        if len(self._refused_until_s) < MAX_SCOPES:
            self._refused_until_s[scope] = max(until_s, self._refused_until_s.get(scope, -math.inf))

    def closures(self, gate: Gate | None, now_s: float) -> Mapping[str, float]:
        """Returns until when each scope is closed: as a gate of this replica knew, and by later 429s.

        A gate of this replica knows all its 429s, and which closures are over already. A beat confirms both.
        """
        if gate is not None:
            self._refused_until_s = gate.scopes.closures(now_s)
        return {scope: until_s for scope, until_s in self._refused_until_s.items() if until_s > now_s}

    def note_beat(self, message: Message, epoch: int, now_s: float, *, is_of_known_leader: bool) -> None:
        """Notes what a beat tells. The beliefs of another leader count once it has heard this replica's hello."""
        has_new = "beliefs" in message and (is_of_known_leader or not self.snapshots)
        if has_new:
            self.note(message["beliefs"], 0.0, now_s)
        if has_new or epoch == self.of.epoch:  # else the leader of these beliefs was not heard
            self.of = Believer(epoch, message["replicas"], now_s)
        for scope, ages in message.get("use", {}).items():
            self.use.note(scope, ages, epoch, now_s)
        if is_of_known_leader:
            self._refused_until_s.clear()

    def age_s(self, now_s: float) -> float:
        """Returns how old the beliefs are."""
        return now_s - self.at_s

    def periods_s(self) -> Mapping[str, float]:
        """Returns the period of each scope whose limit is known."""
        return {belief.scope: belief.period_s for belief in self.snapshots if belief.count is not None}


class OwnGrants:
    """The leader's grants to itself. It tells them a moment later: if it dies, nobody else knows of them."""

    def __init__(self, tell: Callable[[Message], None], loop: asyncio.AbstractEventLoop) -> None:
        self._tell = tell
        self._loop = loop
        self._grants: list[tuple[str, float, float]] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(self, scope: str, granted_at_s: float, cost: float) -> None:
        """Notes a grant."""
        if len(self._grants) < _MAX_TOLD_GRANTS:
            self._grants.append((scope, granted_at_s, cost))
        if self._timer is None:
            self._timer = self._loop.call_later(_TELL_AFTER_S, self.flush)

    def flush(self) -> None:
        """Tells the grants that are not told yet."""
        if self._grants:
            self._tell({"t": "granted", "log": self.take()})

    def take(self) -> list[Grant]:
        """Returns the grants that are not told yet, and forgets them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s, grants, self._grants = self._loop.time(), self._grants, []
        return [(scope, now_s - at_s, cost) for scope, at_s, cost in grants]


class ToTell:
    """What a leader has to tell in its next beat."""

    def __init__(self, gate: Gate, counts: SharedCounts) -> None:
        self._gate = gate
        self._counts = counts
        self._kept_version = -1
        self._told: object = None
        self._told_use: dict[str, tuple[int, int]] = {}  # how much was granted, and counted, when it was told
        self._kept_at_s = -math.inf
        self._kept_grants = 0

    def take(self, now_s: float) -> tuple[Document, Document | None]:
        """Returns what has changed since the last call, and what Redis must keep; None: nothing new."""
        known = list(filter(_is_known, self._gate.scopes.snapshots(now_s)))[:MAX_SCOPES]
        key = [
            (s.scope, s.count, s.period_s, s.proven, s.concurrency_limit, s.probe_refusals, _opens_at_s(s, now_s))
            for s in known
        ]
        told: Document = {}
        has_changed, self._told = key != self._told, key
        if has_changed:
            told["beliefs"] = dump(map(_without_grants, known), NAME, 0.0)
        if use := self._take_use(known, now_s):
            told["use"] = use
        keep, version = None, self._counts.version
        granted = sum(scope.limit.estimate.window.granted for scope in self._gate.scopes)
        is_due = self._kept_at_s + _KEEP_EACH_S < now_s
        if (known and (has_changed or (granted != self._kept_grants and is_due))) or (
            version != self._kept_version and is_due
        ):
            self._kept_at_s, self._kept_version, self._kept_grants = now_s, version, granted
            keep = {"limits": dump(known, NAME, 0.0), "used": self._counts.everything()}
        return told, keep

    def _take_use(self, known: list[ScopeSnapshot], now_s: float) -> dict[str, list[tuple[float, float]]]:
        """Returns the use of the scopes for which it has changed."""
        found, before = {}, self._told_use
        scopes = self._gate.scopes.by_name
        self._told_use = {s.scope: (scopes[s.scope].limit.estimate.window.granted, s.used) for s in known}
        for snapshot in known:
            scope = snapshot.scope
            if snapshot.count is not None and self._told_use[scope] != before.get(scope, (0, 0)):
                found[scope] = [(round(age_s, 3), units) for age_s, units in _use(self._gate, scope, now_s)]
        return found

    def repeat(self) -> None:
        """Lets the next beat tell everything: there is a new member."""
        self._told = None
        self._told_use.clear()


def _is_known(snapshot: ScopeSnapshot) -> bool:
    return snapshot.count is not None or snapshot.opens_in_s > 0


def _opens_at_s(snapshot: ScopeSnapshot, now_s: float) -> float:
    return round(now_s + snapshot.opens_in_s, 1) if snapshot.opens_in_s else 0.0


def _without_grants(snapshot: ScopeSnapshot) -> ScopeSnapshot:
    return replace(snapshot, used=0, newest_age_s=0.0, grants=())


def _use(gate: Gate, scope: str, now_s: float) -> list[tuple[float, float]]:
    """Returns the age and the units of the grants of the present period, in a few groups."""
    window = gate.scopes.by_name[scope].limit.estimate.window
    grants = window.grants_since(now_s - window.counted_for_s)
    return summarize(((now_s - at_s, units) for at_s, units in grants), window.counted_for_s)
