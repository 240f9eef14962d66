"""One environment's part in a fleet: the replica, its events and alerts, and what operators see of the gate.

Only a process with `coordination` imports this module, and with it the client of Redis.
"""

import asyncio
import math
import random
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nanonets_proxy.admission.fleet.bus.check import check
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.replica import Replica
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.admission.sleep_clock import slept_s
from nanonets_proxy.app.environment.fleet_handover import FleetHandover
from nanonets_proxy.app.environment.fleet_reports import FleetReports
from nanonets_proxy.app.environment.gate_view import gate_gauges
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.news import News
from nanonets_proxy.core.ratelimit.scope_status import ScopeStatus
from nanonets_proxy.core.status.document import FleetStatus, GateStatus, LaneEntry
from nanonets_proxy.core.status.gate_status import MAX_SCOPE_CHARS, gate_status
from nanonets_proxy.core.status.text import shown
from nanonets_proxy.telemetry.alerts import Alerts

if TYPE_CHECKING:
    from collections import Counter

_PATIENCE_S: Final = 1.0
_CHANGE_S: Final = 3.0
"""Longer than a change of the leader, even of one that was killed: all replicas would be unready together."""
_ROLES: Final = {
    State.ALONE: "alone",
    State.COLLECTING: "alone",
    State.JOINING: "joins",
    State.FOLLOWING: "follows",
    State.LEADING: "leads",
}


class Fleet:
    """Call `start`, use `room`, then call `stop`."""

    def __init__(
        self,
        policy: FleetPolicy,
        gate: GatePolicy,
        on_news: Callable[[News], None],
        alerts: Alerts,
        log_fields: Mapping[str, str],
    ) -> None:
        """Raises CoordinationUnusable if the client of Redis is not installed."""
        host = socket.gethostname()
        name = secrets.token_hex(8)
        self._policy = policy
        self._names = Names(policy.key(), host, gate.static_limits)
        self._replica = Replica(
            name,
            gate,
            self._names,
            RedisBus(policy, name),
            HomeMaker(
                asyncio.get_running_loop(),
                random.random,
                lambda news: on_news(replace(news, scope=self._names.clear(news.scope))),
                slept_s,
            ),
        )
        self._reports = FleetReports(self._replica, str(policy.address), alerts, log_fields)
        self._replica.position.on_change = self._reports.note
        self.room = self._replica.room
        self.counts = self._replica.counts.shared
        self.handover = FleetHandover(self._replica, policy.prefix())

    async def start(self) -> None:
        """Joins the fleet, or begins alone if that takes too long. Raises CoordinationUnusable."""
        fault = await check(self._policy)
        if fault is not None:
            self._reports.note(fault)
        await self._replica.start(_PATIENCE_S if fault is None else 0.0)
        if fault is None and not self._replica.is_coordinated:
            self._reports.note(self._replica.fault or f"no leader decides {_PATIENCE_S:.0f} s after the start")

    async def stop(self) -> None:
        """Leaves the fleet."""
        self._reports.stop()
        await self._replica.stop()

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy of the gate."""
        self._names.change_limits(policy.static_limits)
        self._replica.change_policy(policy)

    def not_ready_reason(self) -> str | None:
        """Returns why this replica is not ready, or None if it is."""
        is_lost = self._policy.required and self._replica.uncoordinated_for_s > _CHANGE_S
        return "no_coordination" if is_lost else None

    # --- what operators see -------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return self.room.waiting

    @property
    def in_flight(self) -> int:
        return self.room.in_flight

    @property
    def has_free_places(self) -> bool:
        return self.room.in_flight < self._replica.own.policy.max_in_flight

    def status(self, max_waiting: int, most: int, now_s: float) -> GateStatus:
        """Returns the status. The queue and the places are this replica's, but a leader shows the lanes of all."""
        clear, status = self._names.clear, gate_status(self._replica.gate(), max_waiting, most, now_s)
        queue = self.room.queue()
        status = replace(
            status,
            waiting=self.room.waiting,
            waiting_callers=len({caller for caller, _ in queue}),
            in_flight=self.room.in_flight,
            max_in_flight=self._replica.own.policy.max_in_flight,
            fleet=FleetStatus(_ROLES[self._replica.state], self._replica.replicas),
            scopes=tuple(replace(scope, name=clear(scope.name)) for scope in status.scopes),
            lanes=tuple(replace(e, caller=clear(e.caller), scope=clear(e.scope)) for e in status.lanes),
        )
        return status if self._replica.position.remote is None else _at_leader(status, queue, most)

    def scope_statuses(self, now_s: float, most: int) -> list[ScopeStatus]:
        statuses = self._replica.gate().scopes.statuses(now_s, most)
        return [replace(status, name=self._names.clear(status.name)) for status in statuses]

    def forecast_s(self, scope: str, units: float, now_s: float) -> float:  # noqa: ARG002 - as for a gate alone
        """Returns nan: the limit is shared with replicas whose queues this one does not know."""
        return math.nan

    def gauges(self, now_s: float) -> dict[str, float]:
        return {
            **gate_gauges(self._replica.gate(), now_s),
            "nanonets_proxy_waiting": self.room.waiting,
            "nanonets_proxy_in_flight": self.room.in_flight,
            "nanonets_proxy_fleet_replicas": self._replica.replicas,
            "nanonets_proxy_fleet_coordinated": float(self._replica.state.is_coordinated),
        }


def _at_leader(status: GateStatus, queue: "Counter[tuple[str, str]]", most: int) -> GateStatus:
    """Adds a follower's own queue, by caller and scope, to a status of what its leader has told."""
    opens_in_s = {scope.name: scope.opens_in_s for scope in status.scopes}
    waits_s = [opens_in_s.get(shown(scope, MAX_SCOPE_CHARS), 0.0) for _, scope in queue]
    return replace(
        status,
        next_permit_in_s=min(waits_s) if waits_s and all(waits_s) else None,
        lanes=tuple(
            LaneEntry(shown(caller), shown(scope, MAX_SCOPE_CHARS), count, None)
            for (caller, scope), count in queue.most_common(most)
        ),
        lanes_total=len(queue),
    )
