"""The closure of a scope by a refusal."""

from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind


@dataclass(slots=True)
class Closure:
    """The refusal (429) that closed the scope."""

    kind: GrantKind
    """The grant of the refused request."""
    granted_at_s: float
    closed_s: float
    """How long the scope stays closed from then on, by the hint or by the backoff."""
    hinted: bool
    """Whether `closed_s` comes from the upstream's hint."""
    in_flight: int
    """Other requests that were in flight at the refusal, without those that were refused later."""
