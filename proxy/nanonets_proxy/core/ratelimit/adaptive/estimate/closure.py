"""The closure of a scope by a refusal."""

import math
from dataclasses import dataclass
from typing import Final

from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import rounding_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind

_OPTIMISM: Final = 0.75  # of the rounding of a hint
_MAX_GAP_S: Final = 0.25  # within a burst, if there is no hint


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
    names_period: bool = False
    """Whether the hint seems to be the length of each period. Then the end of this period is unknown."""
    was_early: bool = False
    """Whether the refused request was a recovery probe that came before the end of the previous hint."""
    full: "Closure | None" = None
    """This closure before it was shortened; None if it was not."""
    refused: int = 1
    """The refusals that belong to this closure."""
    in_flight: int = 0
    """Other requests in flight at the refusal, less those that were refused later."""

    @property
    def excess_s(self) -> float:
        """By how much `closed_s` may exceed the true wait."""
        return self.closed_s if self.names_period or not self.hinted else rounding_s(self.closed_s)

    @property
    def max_gap_s(self) -> float:
        """The requests before a pause this long say nothing about the period.

        A period that is too short corrects itself within seconds, and one that is too long may take minutes.
        """
        hint = self.full or self
        if hint.hinted:
            return hint.closed_s - _OPTIMISM * rounding_s(hint.closed_s)
        return _MAX_GAP_S if self.refused >= SMALL_COUNT else math.inf
