"""A world in virtual time: callers, a gate, a network, and an upstream with a limiter."""

import heapq
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Rejection, Ticket, Verdicts
from simulator.hints import HintStyle
from simulator.limiters import Limiter

SCOPE = "account"


class GateLike(Protocol):
    """The interface of a gate for its shell."""

    def enqueue(self, ticket: Ticket, now: float) -> Rejection | None: ...
    def poll(self, now: float) -> Verdicts: ...
    def settle(
        self, ticket: Ticket, outcome: Outcome, now: float, retry_after_s: float | None = None
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class Conditions:
    """The network's round trip, and the range of service times."""

    round_trip_s: float = 0.04
    service_s: tuple[float, float] = (0.01, 0.05)
    message_s: float = 0.0
    """The time that a busy machine needs for each message, one after the other; it varies."""
    stall: tuple[float, float] = (0.0, 0.0)
    """How many of the messages stall the machine, and for how long at most."""


@dataclass(slots=True)
class SimulatedRequest:
    """One request. If it `repeats`, its caller sends another request after the response."""

    ticket: Ticket
    arrived_s: float
    repeats: bool
    own_limit: Limiter | None = None
    """The limit of this kind of request, beside that of the scope."""
    granted_s: float = math.nan
    grant_number: int = 0


@dataclass(slots=True)
class Result:
    """The counts of a run."""

    admitted: int = 0
    refused: int = 0
    """Requests that got a 429 from the upstream."""
    rejected: int = 0
    """Requests that got a 429 from the gate."""
    first_admitted_s: float = math.nan
    last_admitted_s: float = math.nan
    last_response_s: float = math.nan
    waits: list[tuple[str, float, float]] = field(default_factory=list)
    """(lane, arrival, wait) of each admitted request, in the order of admission."""
    order: list[tuple[int, int]] = field(default_factory=list)
    """(number in the order of grants, number in the order of arrival)"""
    forecasts: list[tuple[float, float, float]] = field(default_factory=list)
    """(arrival, forecast, real wait)"""
    refused_at_s: list[float] = field(default_factory=list)
    rejections: dict[str, int] = field(default_factory=dict)
    """The gate's own 429s, by reason."""


class World:
    """Runs events in order of time. All randomness comes from the seed."""

    def __init__(
        self,
        gate: GateLike,
        limiter: Limiter,
        hint: HintStyle,
        period_s: float,
        conditions: Conditions,
        seed: int,
        *,
        instant: bool = False,
        own_limits: Mapping[str, Limiter] | None = None,
    ) -> None:
        """If `instant`, requests and responses travel in no time, as the oracle requires.

        `own_limits` are the limits of some kinds of requests, beside that of the scope. With None, there are no
        requests of these kinds.
        """
        self.now = 0.0
        self.result = Result()
        self._gate, self._limiter, self._hint, self._period_s = gate, limiter, hint, period_s
        self._conditions, self._instant, self._own_limits = conditions, instant, own_limits
        self.random = random.Random(seed)  # noqa: S311 - a simulation
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._events_made = 0
        self._grants = 0
        self._busy_until_s = 0.0
        self._requests: dict[Ticket, SimulatedRequest] = {}
        self._wake_at_s: float | None = None

    def at(self, when_s: float, event: Callable[[], None]) -> None:
        """Schedules an event."""
        self._events_made += 1
        heapq.heappush(self._events, (when_s, self._events_made, event))

    def arrive(
        self, lane: str = "a", *, repeats: bool = False, deadline_s: float = math.inf, kind: str = ""
    ) -> None:
        if kind and self._own_limits is None:
            return
        ticket = Ticket(SCOPE, deadline_s, lane=lane, kind=kind)
        own_limit = self._own_limits[kind] if kind and self._own_limits else None
        request = self._requests[ticket] = SimulatedRequest(ticket, self.now, repeats, own_limit)
        self._enqueue(request)

    def _enqueue(self, request: SimulatedRequest) -> None:
        rejection = self._gate.enqueue(request.ticket, self.now)
        if rejection is not None:
            self._reject(request.ticket, rejection.reason)

    def _reject(self, ticket: Ticket, reason: Reason) -> None:
        self.result.rejected += 1
        self.result.rejections[reason.value] = self.result.rejections.get(reason.value, 0) + 1
        request = self._requests.pop(ticket)
        if request.repeats:
            again = partial(self.arrive, ticket.lane, repeats=True, kind=ticket.kind)
            self.at(self.now + self._conditions.round_trip_s, again)

    def run(self, until_s: float) -> Result:
        while self._events and self._events[0][0] <= until_s:
            self.now = self._events[0][0]
            while self._events and self._events[0][0] == self.now:
                heapq.heappop(self._events)[2]()
            self._poll()
        return self.result

    def _poll(self) -> None:
        verdicts = self._gate.poll(self.now)
        for ticket in verdicts.granted:
            self._send(ticket)
        for expiry in verdicts.expired:
            self._reject(expiry.ticket, expiry.reason)
        wake_at_s = verdicts.wake_at_s
        if wake_at_s is not None and wake_at_s != self._wake_at_s:
            self._wake_at_s = wake_at_s
            self.at(wake_at_s, lambda: None)

    def _one_way_s(self) -> float:
        travel_s = 0.5 * self._conditions.round_trip_s * self.random.uniform(0.8, 1.2)
        return travel_s + self._queued_s() if self._conditions.message_s else travel_s

    def _queued_s(self) -> float:
        """Returns how long a message waits for the busy machine."""
        share, longest_s = self._conditions.stall
        self._busy_until_s = max(self._busy_until_s, self.now)
        self._busy_until_s += self._conditions.message_s * self.random.uniform(0.3, 2.0)
        if self.random.random() < share:
            self._busy_until_s += self.random.uniform(0.0, longest_s)
        return self._busy_until_s - self.now

    def _send(self, ticket: Ticket) -> None:
        request = self._requests[ticket]
        request.granted_s = self.now
        self._grants += 1
        request.grant_number = self._grants
        if self._instant:
            self._reach_upstream(ticket)
        else:
            self.at(self.now + self._one_way_s(), lambda: self._reach_upstream(ticket))

    def _reach_upstream(self, ticket: Ticket) -> None:
        own_limit = self._requests[ticket].own_limit
        wait_s = self._limiter.wait_s(self.now)
        if wait_s > 0:
            self._limiter.refuse(self.now)
            wait_s = self._limiter.wait_s(self.now)
        if own_limit is not None:
            wait_s = max(wait_s, own_limit.wait_s(self.now))
        if wait_s > 0:
            hint_s = self._hint(wait_s, self._period_s, self.now, self.random)
            self.result.refused += 1
            self.result.refused_at_s.append(self.now)
            self.at(self.now + self._one_way_s(), lambda: self._refused(ticket, hint_s))
            return
        self._limiter.admit(self.now)
        if own_limit is not None:
            own_limit.admit(self.now)
        request = self._requests[ticket]
        result = self.result
        result.admitted += 1
        result.waits.append((request.ticket.lane, request.arrived_s, request.granted_s - request.arrived_s))
        result.order.append((request.grant_number, request.ticket.arrival))
        if not math.isnan(request.ticket.forecast_s):
            result.forecasts.append(
                (request.arrived_s, request.ticket.forecast_s, request.granted_s - request.arrived_s)
            )
        if result.admitted == 1:
            result.first_admitted_s = self.now
        result.last_admitted_s = self.now
        self.at(self.now + self.random.uniform(*self._conditions.service_s), lambda: self._served(ticket))

    def _served(self, ticket: Ticket) -> None:
        self._limiter.release()
        if self._instant:
            self._responded(ticket)
        else:
            self.at(self.now + self._one_way_s(), lambda: self._responded(ticket))

    def _responded(self, ticket: Ticket) -> None:
        self.result.last_response_s = self.now
        self._gate.settle(ticket, Outcome.SERVED, self.now)
        request = self._requests.pop(ticket)
        if request.repeats:
            self.arrive(request.ticket.lane, repeats=True, kind=ticket.kind)

    def _refused(self, ticket: Ticket, hint_s: float | None) -> None:
        self._gate.settle(ticket, Outcome.THROTTLED, self.now, hint_s)
        self._enqueue(self._requests[ticket])
