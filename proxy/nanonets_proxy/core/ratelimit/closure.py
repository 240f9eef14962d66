"""By what right a request was granted, and the refusal that closes a scope."""

import enum
from dataclasses import dataclass


class GrantKind(enum.Enum):
    """By what right a request was granted."""

    PLAIN = "plain"
    """Within what was proven."""
    TRIAL = "trial"
    """Within what is believed."""
    FIRST = "first"
    """The first after a period that has not held yet."""
    PROBE = "probe"
    """The first after a closure."""
    EXTRA = "extra"
    """One more than the window's count."""
    EARLY = "early"
    """Before the window's period has passed."""
    WIDER = "wider"
    """One more in flight than the cap."""


ATTEMPTS = frozenset({GrantKind.EXTRA, GrantKind.EARLY, GrantKind.WIDER})


@dataclass(slots=True)
class Closure:
    """The 429 that closed the scope."""

    kind: GrantKind
    granted_at_s: float
    closed_s: float
    """How long, from then on, by its hint or the backoff."""
    hinted: bool
    in_flight: int
    """Others that were in flight when it came, less those that were refused later."""
