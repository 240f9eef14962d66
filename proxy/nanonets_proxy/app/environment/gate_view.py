"""What operators see of the gate: this process's own, or that of a fleet."""

import math
from typing import Protocol

from nanonets_proxy.core.ratelimit.adaptive.forecast import predicted_wait_s
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.scope_status import ScopeStatus
from nanonets_proxy.core.status.document import GateStatus
from nanonets_proxy.core.status.gate_status import gate_status


class GateView(Protocol):
    """The requests of this process, and what is known of the limits."""

    @property
    def waiting(self) -> int:
        """The number of waiting requests."""

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""

    @property
    def has_free_places(self) -> bool:
        """Whether fewer requests are in flight than may be."""

    def status(self, max_waiting: int, most: int, now_s: float) -> GateStatus:
        """Returns the status, with lists of at most `most` items."""

    def scope_statuses(self, now_s: float, most: int) -> list[ScopeStatus]:
        """Returns the status of at most `most` scopes."""

    def gauges(self, now_s: float) -> dict[str, float]:
        """Returns the gauges of the gate, by name."""

    def forecast_s(self, scope: str, units: float, now_s: float) -> float:
        """Predicts how long it takes until this many more units of a scope have gone; nan: unknown."""


class OwnGate:
    """The view of this process's own gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @property
    def waiting(self) -> int:
        return self._gate.waiting

    @property
    def in_flight(self) -> int:
        return self._gate.in_flight

    @property
    def has_free_places(self) -> bool:
        return self._gate.in_flight < self._gate.policy.max_in_flight

    def status(self, max_waiting: int, most: int, now_s: float) -> GateStatus:
        return gate_status(self._gate, max_waiting, most, now_s)

    def scope_statuses(self, now_s: float, most: int) -> list[ScopeStatus]:
        return self._gate.scopes.statuses(now_s, most)

    def gauges(self, now_s: float) -> dict[str, float]:
        return gate_gauges(self._gate, now_s)

    def forecast_s(self, scope: str, units: float, now_s: float) -> float:
        return gate_forecast_s(self._gate, scope, units, now_s)


def gate_forecast_s(gate: Gate, scope: str, units: float, now_s: float) -> float:
    """Returns the forecast of a gate that decides for this process alone."""
    state = gate.scopes.by_name.get(scope)
    return math.nan if state is None else predicted_wait_s(state.limit, units, now_s)


def gate_gauges(gate: Gate, now_s: float) -> dict[str, float]:
    """Returns the gauges of a gate that decides for this process alone."""
    closed = gate.scopes.closed(now_s)
    return {
        "nanonets_proxy_waiting": gate.waiting,
        "nanonets_proxy_in_flight": gate.in_flight,
        "nanonets_proxy_cooldown_seconds": max(closed.values(), default=now_s) - now_s,
        "nanonets_proxy_closed_scopes": len(closed),
        "nanonets_proxy_quota_reserve": gate.scopes.reserve(),
        "nanonets_proxy_fleet_replicas": 0,
        "nanonets_proxy_fleet_coordinated": 0,
    }
