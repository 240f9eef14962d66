"""The tickets of the process that this one has replaced: its callers wait in this process's queue.

`handed_over_gate.py` has the messages.
"""

import asyncio
import math
from collections.abc import Callable, Container, Mapping
from functools import partial

from nanonets_proxy.admission.handed_over_gate import Message
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Ticket, TicketState
from nanonets_proxy.errors import LargerThanLimit, ProxyError, RateLimited

_LANE = "(predecessor)"  # the callers of the requests in flight are not known
_UNKNOWN = -math.inf  # the instant of a grant before the handover, until the permit is settled


class Predecessor:
    """The predecessor's tickets of one environment."""

    def __init__(
        self,
        room: WaitingRoom,
        in_flight: Mapping[str, int],
        send: Callable[[Message], None],
        known_serials: Container[str] = (),
    ) -> None:
        """`in_flight` has the number of requests in flight in each scope. `send` sends a message back.

        `known_serials`: the scopes whose limits know the serial numbers of the predecessor's grants.
        """
        self._room = room
        self._send = send
        self._known_serials = known_serials
        self._loop = asyncio.get_running_loop()
        self._tickets: dict[int, Ticket] = {}
        self._unnamed: dict[str, list[Ticket]] = {}  # in flight since before the handover, by scope
        for scope, count in in_flight.items():
            self._unnamed[scope] = [self._adopt(scope) for _ in range(count)]

    def receive(self, message: Message) -> None:
        """Does what a message of the predecessor says."""
        kind, number, *details = message
        if kind == "wait":
            self._wait(number, *details)
        elif kind == "end":
            self._end(number, *details)
        elif kind == "pause":
            self._room.pause(self._in_flight(number, *details), lambda: None)
        elif (ticket := self._tickets.pop(number, None)) is not None:
            self._leave(ticket)

    def lose(self) -> None:
        """Ends all tickets: the predecessor has ended, or the link to it is lost."""
        for ticket in [*self._tickets.values(), *(ticket for own in self._unnamed.values() for ticket in own)]:
            if ticket.state is TicketState.ADMITTED:
                self._room.settle(ticket, Outcome.FAILED)  # the upstream may have counted its request
            else:
                self._leave(ticket)
        self._tickets.clear()
        self._unnamed.clear()

    def _leave(self, ticket: Ticket) -> None:
        if ticket.state is TicketState.PAUSED:
            self._room.settle(ticket, Outcome.FAILED)
        elif ticket.state in (TicketState.WAITING, TicketState.ADMITTED):
            self._room.leave(ticket)

    def _wait(
        self, number: int, scope: str, lane: str, deadline_s: float | None, urgency: int, cost: float, kind: str
    ) -> None:
        ticket = self._tickets.get(number)
        if ticket is None:
            until_s = math.inf if deadline_s is None else deadline_s
            ticket = self._tickets[number] = Ticket(scope, until_s, lane, urgency, cost, kind)
        else:
            ticket.lane, ticket.cost = lane, cost
        try:
            admission = self._room.enter(ticket, self._loop.time())
        except ProxyError as error:
            self._reject(number, error)
        else:
            if admission is None:
                self._send(["go", number])
            else:
                admission.add_done_callback(partial(self._tell, number))

    def _tell(self, number: int, admission: "asyncio.Future[None]") -> None:
        error = admission.exception()
        if error is None:
            self._send(["go", number])
        elif isinstance(error, ProxyError):
            self._reject(number, error)

    def _reject(self, number: int, error: ProxyError) -> None:
        self._tickets.pop(number, None)
        if isinstance(error, RateLimited):
            self._send(["no", number, error.details["reason"], error.retry_after_s])
        elif isinstance(error, LargerThanLimit):
            self._send(["no", number, Reason.LARGER_THAN_LIMIT.value, 0.0])
        # else this process stops: it closes the link, and the predecessor goes on alone

    def _end(
        self,
        number: int,
        scope: str,
        outcome: str,
        retry_after_s: float | None,
        quota_used_up: bool,
        granted_at_s: float,
        cost: float,
        serial: int,
    ) -> None:
        ticket = self._in_flight(number, scope)
        if ticket.granted_at_s == _UNKNOWN:
            ticket.granted_at_s, ticket.cost = granted_at_s, cost
            if scope in self._known_serials:
                ticket.serial = serial
        ended = Outcome(outcome)
        self._room.settle(ticket, ended, retry_after_s, quota_used_up=quota_used_up)
        if ended is Outcome.SERVED:
            del self._tickets[number]  # any other may wait again

    def _in_flight(self, number: int, scope: str) -> Ticket:
        """Returns the ticket of a request in flight, and remembers its number."""
        ticket = self._tickets.get(number)
        if ticket is None:
            unnamed = self._unnamed.get(scope)
            ticket = self._tickets[number] = unnamed.pop() if unnamed else self._adopt(scope)
        return ticket

    def _adopt(self, scope: str) -> Ticket:
        ticket = Ticket(scope, math.inf, _LANE)
        self._room.adopt(ticket, _UNKNOWN)
        return ticket
