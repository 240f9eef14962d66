"""What the upstream announced about a quota before any refusal: the last grant that it accepts, and until when."""

import math

from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice


class AnnouncedQuota:
    """Holds back the grants that the upstream would refuse, as it announced."""

    __slots__ = ("_last_allowed", "until_s")

    def __init__(self) -> None:
        self._last_allowed: float = 0
        self.until_s = -math.inf
        """Until then, the upstream accepts no units beyond the first `_last_allowed` of all."""

    def holds(self, granted_units: float, cost: float, now: float) -> bool:
        """Returns whether a grant of this cost must wait; `granted_units` are those of all grants so far."""
        return now < self.until_s and granted_units + cost > self._last_allowed

    def note_advice(self, units: float, advice: Advice, now: float) -> None:
        """Notes what the response to a grant announced; `units` are those of all grants up to that one."""
        if advice.remaining is not None:
            # The upstream counts requests about in the order of their grants.
            self._last_allowed, self.until_s = units + advice.remaining, now + advice.resets_in_s
