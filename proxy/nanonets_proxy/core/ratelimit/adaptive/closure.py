"""The closure of a scope by a refusal."""

from dataclasses import dataclass

from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.likely_period import rounding_s


@dataclass(slots=True)
class Closure:
    """The refusal (429) that closed the scope."""

    kind: GrantKind
    """The grant of the refused request."""
    granted_at_s: float
    closed_s: float
    """How long the refusal closes the scope, by its hint or by the backoff."""
    hinted: bool
    """Whether `closed_s` comes from a hint."""
    opens_at_s: float
    """When the closure ends."""
    full: "Closure | None" = None
    """This closure before it was shortened; None if it was not."""
    refused: int = 1
    """The refusals that belong to this closure."""
    in_flight: int = 0
    """Other requests in flight at the refusal, less those that were refused later."""

    @property
    def excess_s(self) -> float:
        """By how much `closed_s` may exceed the true wait."""
        return rounding_s(self.closed_s) if self.hinted else self.closed_s
