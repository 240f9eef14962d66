"""The values that the gate and its shell exchange: tickets, outcomes, rejections, verdicts.

An admitted ticket is its own permit. The calls in this table are those of the gate:

| state of a ticket | event | next state |
|---|---|---|
| NEW | `enqueue` | WAITING; NEW if rejected |
| NEW | `try_admit`, if the ticket need not wait | ADMITTED |
| NEW | `adopt`: another process has sent its request | ADMITTED |
| WAITING | `poll`: a place in flight is free and the scope's limit allows a grant | ADMITTED |
| WAITING | `poll`: its deadline has passed, or its scope opens after its deadline | ENDED, reported as an expiry |
| WAITING | `poll`: its cost exceeds the whole limit | ENDED, reported as an expiry |
| WAITING | `poll`: a quota is used up, or the upstream refuses only this ticket | ENDED, reported as an expiry |
| WAITING | `withdraw` | ENDED |
| ADMITTED | `settle` as SERVED | ENDED |
| ADMITTED | `settle` with another outcome | RETURNED |
| ADMITTED | `pause` | PAUSED: the permit stays, the place is free for others |
| PAUSED | `resume`, or a later `poll`: a place in flight is free | ADMITTED |
| PAUSED | `settle` | as for ADMITTED |
| RETURNED | `enqueue` | WAITING, at its old place in the order of arrival; RETURNED if rejected |
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

DEFAULT_URGENCY = 3  # RFC 9218 §4.1

MAX_REFUSALS = 3
MAX_OWN_REFUSALS = 2
"""A ticket ends after this many refusals, of which this many were certainly its own."""


class Reason(enum.Enum):
    """Why a ticket gets no permit."""

    QUEUE_FULL = "queue_full"
    LANE_FULL = "queue_full_for_caller"
    CANNOT_BE_IN_TIME = "cannot_be_in_time"
    """The scope opens, or the ticket's turn comes, after the deadline."""
    DEADLINE_PASSED = "deadline_passed"
    LARGER_THAN_LIMIT = "larger_than_limit"
    """The ticket's cost exceeds the whole limit of its scope."""
    REFUSED_ALONE = "refused_alone"
    """The upstream refuses this request while it accepts others (`suspicion.py`)."""
    QUOTA_USED_UP = "quota_used_up"
    """A quota is used up for longer than a request may wait (`long_quota.py`)."""


class TicketState(enum.Enum):
    """The states of a ticket. The top of this module has their transitions."""

    NEW = "new"
    WAITING = "waiting"
    ADMITTED = "admitted"
    RETURNED = "returned"
    ENDED = "ended"
    PAUSED = "paused"


class Outcome(enum.Enum):
    """How a permit ended."""

    SERVED = "served"
    """The upstream accepted the request: its response was neither 429 nor 401."""
    THROTTLED = "throttled"
    """The upstream refused the request with a 429."""
    KEY_REJECTED = "key_rejected"
    """The upstream rejected the key with a 401, which tells nothing about the limit."""
    FAILED = "failed"
    """No response came: the upstream may or may not have counted the request."""
    UNUSED = "unused"
    """The permit was handed back before anything was sent."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's claim to be sent. In state ADMITTED it is a permit to send the request once.

    It belongs to one gate, which sets the fields from `forecast_s` on.
    """

    scope: str
    deadline_s: float
    """The last instant at which the ticket can be granted."""
    lane: str = ""
    """The caller. Callers take turns."""
    urgency: int = DEFAULT_URGENCY
    """RFC 9218 §4.1: 0 goes before 7, among the requests of one caller."""
    cost: float = 1
    """The units of the limit that the request uses, such as its number of pages; at least 1."""
    kind: str = ""
    """What the request has in common with others that may be refused for the same reason, such as its target."""
    forecast_s: float = field(default=math.nan, init=False)
    """The predicted wait at the first `enqueue`; nan if it was unknown."""
    arrival: int = field(default=0, init=False)
    """The position in the order of arrival over all scopes, set at the first `enqueue`."""
    state: TicketState = field(default=TicketState.NEW, init=False)
    granted_at_s: float = field(init=False, repr=False)
    """The instant of the latest grant."""
    serial: int = field(init=False, repr=False)
    """The serial number of the latest grant in its scope's limit."""
    refusals: int = field(default=0, init=False)
    """The number of 429s."""
    doubts: int = field(default=0, init=False)
    """The number of refusals that were in doubt (`suspicion.py`)."""
    own_refusals: int = field(default=0, init=False)
    """The number of refusals that certainly concerned only this ticket."""
    last_was_hinted: bool = field(default=False, init=False)
    """Whether the latest refusal in doubt had a hint."""
    held_until_s: float = field(default=-math.inf, init=False)
    """The ticket is not queued again before this instant."""
    quota_used_up: bool = field(default=False, init=False)
    """Whether the latest refusal says that a quota is used up for long."""
    is_held: bool = field(default=False, init=False)
    """Whether the ticket waits outside the queue."""
    claim: object = field(default=None, init=False, repr=False)
    """The shell's own record of this ticket. The gate does not use it."""

    @property
    def must_end(self) -> bool:
        """Whether the upstream has refused this ticket often enough while it accepted others."""
        return self.own_refusals >= MAX_OWN_REFUSALS and self.refusals >= MAX_REFUSALS


@dataclass(frozen=True, slots=True)
class Rejection:
    """The gate's "no" to a ticket that asks to wait."""

    reason: Reason
    retry_after_s: float
    position: int
    """The position in the queue that the ticket would have had, from 1."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """The end of a waiting ticket without a permit."""

    ticket: Ticket
    reason: Reason
    retry_after_s: float


class Verdicts(NamedTuple):
    """The decisions of a poll."""

    granted: Sequence[Ticket]
    expired: Sequence[Expiry]
    wake_at_s: float | None
    """When to poll again if nothing else happens, always later than this poll; None if no poll is needed."""
