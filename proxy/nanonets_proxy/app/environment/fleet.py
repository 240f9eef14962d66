"""One environment's part in a fleet: the replica, its events and alerts, and what operators see of the gate.

Only a process with `coordination` imports this module, and with it the client of Redis.
"""

import asyncio
import math
import random
import secrets
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from nanonets_proxy.admission.fleet.bus.check import check
from nanonets_proxy.admission.fleet.bus.redis_bus import RedisBus
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.lead import OTHER_VERSION
from nanonets_proxy.admission.fleet.replica import Replica
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.admission.sleep_clock import slept_s
from nanonets_proxy.app.environment.fleet_handover import FleetHandover
from nanonets_proxy.app.environment.gate_view import gate_gauges
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.fleet.policy import FleetPolicy
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.news import News
from nanonets_proxy.core.ratelimit.scope_status import ScopeStatus
from nanonets_proxy.core.status.document import FleetStatus, GateStatus
from nanonets_proxy.core.status.gate_status import gate_status
from nanonets_proxy.telemetry.alerts import Alerts

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
_ADVICE: Final = "check that the server of coordination runs and that this machine reaches it"
_FINISH: Final = "finish the upgrade: end the replicas of the earlier version"


class Fleet:
    """Call `start`, use `room`, then call `stop`."""

    def __init__(
        self, policy: FleetPolicy, gate: GatePolicy, on_news: Callable[[News], None], alerts: Alerts
    ) -> None:
        """Raises CoordinationUnusable if the client of Redis is not installed."""
        host = socket.gethostname()
        name = secrets.token_hex(8)
        self._policy = policy
        self._alerts = alerts
        self._log = structlog.get_logger()
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
        self._replica.position.on_change = self._on_change
        self.room = self._replica.room
        self.counts = self._replica.counts.shared
        self.handover = FleetHandover(self._replica, policy.prefix())

    async def start(self) -> None:
        """Joins the fleet, or begins alone if that takes too long. Raises CoordinationUnusable."""
        fault = await check(self._policy)
        if fault is not None:
            self._report_alone(fault)
        await self._replica.start(_PATIENCE_S if fault is None else 0.0)
        if fault is None and not self._replica.is_coordinated:
            self._report_alone(
                self._replica.campaign.fault or f"no leader decides {_PATIENCE_S:.0f} s after the start"
            )

    async def stop(self) -> None:
        """Leaves the fleet."""
        await self._replica.stop()

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy of the gate."""
        self._names.change_limits(policy.static_limits)
        self._replica.change_policy(policy)

    def not_ready_reason(self) -> str | None:
        """Returns why this replica is not ready, or None if it is."""
        is_lost = self._policy.required and self._replica.uncoordinated_for_s > _CHANGE_S
        return "no_coordination" if is_lost else None

    def _on_change(self, reason: str) -> None:
        replica = self._replica
        if not replica.state.is_coordinated:
            self._report_alone(reason)
            return
        self._alerts.end("fleet_alone")
        role = "leader" if replica.state is State.LEADING else "follower"
        self._log.info("fleet_joined", role=role, replica=replica.position.name, replicas=replica.replicas)

    def _report_alone(self, reason: str) -> None:
        advice, kind = (_FINISH, "version") if reason == OTHER_VERSION else (_ADVICE, "")
        self._alerts.end("fleet_alone")  # of the other kind: the cause has changed
        self._alerts.report(
            "fleet_alone",
            advice,
            kind=kind,
            lasting=True,
            address=str(self._policy.address),
            reason=reason,
            replicas=self._replica.replicas,
            others=self._replica.own.others,
        )

    # --- what operators see -------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return self.room.waiting

    @property
    def in_flight(self) -> int:
        return self.room.in_flight

    @property
    def has_free_places(self) -> bool:
        return self.room.in_flight < self._replica.gate().policy.max_in_flight

    def status(self, max_waiting: int, most: int, now_s: float) -> GateStatus:
        clear, status = self._names.clear, gate_status(self._replica.gate(), max_waiting, most, now_s)
        return replace(
            status,
            waiting=self.room.waiting,
            in_flight=self.room.in_flight,
            fleet=FleetStatus(_ROLES[self._replica.state], self._replica.replicas),
            scopes=tuple(replace(scope, name=clear(scope.name)) for scope in status.scopes),
            lanes=tuple(replace(e, caller=clear(e.caller), scope=clear(e.scope)) for e in status.lanes),
        )

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
