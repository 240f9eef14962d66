"""What the gate and its shell hand each other: tickets, verdicts.

`gate.py` has the theory.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

DEFAULT_URGENCY = 3  # RFC 9218 §4.1


class Reason(enum.Enum):
    """Why a ticket gets no permit."""

    QUEUE_FULL = "queue_full"
    LANE_FULL = "queue_full_for_caller"
    CANNOT_BE_IN_TIME = "cannot_be_in_time"
    """Its scope is closed beyond its deadline."""
    DEADLINE_PASSED = "deadline_passed"


class TicketState(enum.Enum):
    NEW = "new"
    WAITING = "waiting"
    ADMITTED = "admitted"
    RETURNED = "returned"
    ENDED = "ended"


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
    """One request's claim to be sent; while ADMITTED, its permit to be sent once, which ends by `Gate.settle`.

    Belongs to one gate, which keeps the fields from `forecast_s` on.
    """

    scope: str
    deadline_s: float
    """The instant until which it may wait; at it, it still goes if it can go at once."""
    lane: str = ""
    """Whose request it is: callers are served in turns."""
    urgency: int = DEFAULT_URGENCY
    """RFC 9218 §4.1: 0 before 7, among the requests of one caller."""
    forecast_s: float = field(default=math.nan, init=False)
    """How long the gate thought it would wait when it came; nan: it could not know."""
    arrival: int = field(default=0, init=False)
    """Its number in the order of arrival, over all scopes, given at the first `enqueue`."""
    state: TicketState = field(default=TicketState.NEW, init=False)
    granted_at_s: float = field(init=False, repr=False)
    """When it was admitted, for the last time."""
    serial: int = field(init=False, repr=False)
    """The number of that grant within the scope's limit."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The answer to a ticket that may not wait."""

    reason: Reason
    retry_after_s: float
    position: int
    """Which one it would have been to go, from 1."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """A waiting ticket that leaves without a permit."""

    ticket: Ticket
    reason: Reason
    retry_after_s: float


class Verdicts(NamedTuple):
    """What a poll decided."""

    granted: Sequence[Ticket]
    expired: Sequence[Expiry]
    wake_at_s: float | None
    """When to poll again if nothing happens till then: later than this poll. None: nothing can change."""
