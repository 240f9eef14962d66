"""The gate of a process whose successor serves new callers: the successor's gate decides for the remaining ones.

One gate decides for both processes, so that together they keep to the limit, and callers keep their turns.

ASKING  Events go to the successor as messages, and its verdicts come back.
          the link to the successor is lost -> ALONE
ALONE   The process's own gate decides again.

Messages are lists, the first item names the kind (`SUCCESSOR` handles those of the predecessor: `predecessor.py`):
  predecessor -> successor
    wait   number, scope, lane, deadline_s, urgency, cost, kind   a ticket waits for a permit
    leave  number                                                 its caller has gone
    pause  number, scope                                          its place is free
    end    number, scope, outcome, retry_after_s, quota_used_up, granted_at_s, cost, serial   its permit is settled
  successor -> predecessor
    go     number                                                 it has its permit
    no     number, reason, retry_after_s                          it gets none
Instants are those of the machine's monotonic clock, which all processes share.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.news import NewsQueue
from nanonets_proxy.core.ratelimit.tickets import (
    Expiry,
    Outcome,
    Reason,
    Rejection,
    Ticket,
    TicketState,
    Verdicts,
)

_UNBOUNDED: Final = 10**9

Message = Sequence[Any]


class HandedOverGate:
    """Has the methods of `Gate` that the waiting room uses."""

    def __init__(self, own: Gate, policy: GatePolicy, send: Callable[[Message], None]) -> None:
        """`own` is the process's gate until now, with its policy. `send` sends a message to the successor."""
        self._own = own
        self.policy = policy
        self._send = send
        self._asks = True
        self._numbers: dict[Ticket, int] = {}
        self._waiting: dict[int, Ticket] = {}
        self._granted_elsewhere: set[Ticket] = set()
        self._go: list[Ticket] = []
        self._no: list[Expiry] = []
        own.change_policy(replace(policy, max_in_flight=_UNBOUNDED))  # places are counted by the successor

    # --- from the successor -----------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Notes a verdict of the successor. A poll must follow."""
        kind, number, *details = message
        ticket = self._waiting.pop(number, None)
        if ticket is None:
            if kind == "go":  # the caller has gone meanwhile
                self._send(["leave", number])
        elif kind == "go":
            ticket.state = TicketState.ADMITTED
            self._granted_elsewhere.add(ticket)
            self._go.append(ticket)
        else:
            ticket.state = TicketState.ENDED
            self._no.append(Expiry(ticket, Reason(details[0]), details[1]))

    def go_on_alone(self, now: float) -> None:
        """Lets the process's own gate decide again: the successor is gone. A poll must follow."""
        self._asks = False
        self._own.change_policy(self.policy)
        waiting, self._waiting = self._waiting, {}
        for ticket in waiting.values():
            ticket.state = TicketState.NEW
            if (rejection := self._own.enqueue(ticket, now)) is not None:
                self._no.append(Expiry(ticket, rejection.reason, rejection.retry_after_s))

    @property
    def has_other_permits(self) -> bool:
        """Whether permits that the successor granted are unsettled."""
        return bool(self._granted_elsewhere)

    # --- the methods of `Gate` ---------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self._waiting) + self._own.waiting

    @property
    def needs_poll(self) -> bool:
        return bool(self._go or self._no) or self._own.needs_poll

    @property
    def news(self) -> NewsQueue:
        return self._own.news

    def change_policy(self, policy: GatePolicy) -> None:
        self.policy = policy
        if not self._asks:
            self._own.change_policy(policy)

    def note_sleep(self, slept_s: float) -> None:
        self._own.note_sleep(slept_s)

    def adopt(self, ticket: Ticket, granted_at_s: float, now: float) -> None:
        self._own.adopt(ticket, granted_at_s, now)

    def try_admit(self, ticket: Ticket, now: float) -> bool:
        return not self._asks and self._own.try_admit(ticket, now)

    def enqueue(self, ticket: Ticket, now: float) -> Rejection | None:
        if not self._asks:
            if ticket.state is TicketState.RETURNED and not ticket.arrival:  # only the successor knew it
                ticket.state = TicketState.NEW
            return self._own.enqueue(ticket, now)
        ticket.state = TicketState.WAITING
        number = self._numbers.setdefault(ticket, len(self._numbers) + 1)
        self._waiting[number] = ticket
        deadline_s = None if ticket.deadline_s == math.inf else ticket.deadline_s
        self._send(
            ["wait", number, ticket.scope, ticket.lane, deadline_s, ticket.urgency, ticket.cost, ticket.kind]
        )
        return None

    def withdraw(self, ticket: Ticket, now: float) -> None:
        if self._waiting.pop(self._numbers.get(ticket, 0), None) is None:
            self._own.withdraw(ticket, now)
        else:
            ticket.state = TicketState.ENDED
            self._send(["leave", self._numbers[ticket]])

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        retry_after_s: float | None = None,
        quota_used_up: bool = False,
    ) -> bool:
        needs_poll = False
        if ticket in self._granted_elsewhere:
            self._granted_elsewhere.discard(ticket)
            ticket.state = TicketState.ENDED if outcome is Outcome.SERVED else TicketState.RETURNED
        else:
            needs_poll = self._own.settle(ticket, outcome, now, retry_after_s, quota_used_up=quota_used_up)
        if self._asks:
            number = self._numbers.setdefault(ticket, len(self._numbers) + 1)
            # A ticket that only the successor granted has neither an instant nor a serial number here.
            granted = [getattr(ticket, "granted_at_s", now), ticket.cost, getattr(ticket, "serial", 0)]
            self._send(["end", number, ticket.scope, outcome.value, retry_after_s, quota_used_up, *granted])
        return needs_poll

    def pause(self, ticket: Ticket) -> None:
        if ticket in self._granted_elsewhere:
            ticket.state = TicketState.PAUSED
        else:
            self._own.pause(ticket)
        if self._asks:
            self._send(["pause", self._numbers.setdefault(ticket, len(self._numbers) + 1), ticket.scope])

    def resume(self, ticket: Ticket) -> bool:
        if ticket not in self._granted_elsewhere:
            return self._own.resume(ticket)
        ticket.state = TicketState.ADMITTED
        return True

    def correct_cost(self, ticket: Ticket, cost: float) -> None:
        if ticket in self._granted_elsewhere or ticket.state is TicketState.RETURNED:
            ticket.cost = cost
        else:
            self._own.correct_cost(ticket, cost)

    def note_advice(self, ticket: Ticket, advice: Advice, now: float) -> None:
        """Does nothing: the successor reads the next announcement itself."""

    def poll(self, now: float) -> Verdicts:
        own = self._own.poll(now)
        if self._asks:
            self._own.news.take()  # the successor has the same news of the same refusals
        granted, self._go = [*self._go, *own.granted], []
        expired, self._no = [*self._no, *own.expired], []
        return Verdicts(granted, expired, own.wake_at_s)
