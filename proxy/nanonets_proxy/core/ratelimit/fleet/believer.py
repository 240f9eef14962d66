"""Whose beliefs count if replicas of one fleet disagree about a limit."""

from dataclasses import dataclass
from typing import Final

_TOGETHER_S: Final = 60.0
"""Leaders that were heard within this time of each other may have led at the same time."""


@dataclass(frozen=True, slots=True)
class Believer:
    """The leader that believed something."""

    epoch: int = 0
    replicas: int = 1
    """How many it led, with itself."""
    heard_at_s: float = 0.0
    """When it was heard last."""

    def counts_before(self, other: "Believer") -> bool:
        """Returns whether this leader's beliefs count, and not those of a leader of another epoch.

        The later leader knows more. But two can lead at the same time, if a part of the fleet uses another server:
        a replica that starts during a failover may find the earlier master, and lead there alone. It competes with
        the others, and takes that for a lower limit. So of two such leaders, the one of at least twice as many
        replicas counts.
        """
        apart_s = self.heard_at_s - other.heard_at_s
        if abs(apart_s) > _TOGETHER_S:
            return apart_s > 0
        if self.replicas >= 2 * other.replicas or other.replicas >= 2 * self.replicas:
            return self.replicas > other.replicas
        return self.epoch > other.epoch
