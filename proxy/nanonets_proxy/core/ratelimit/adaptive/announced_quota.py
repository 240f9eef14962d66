"""What the upstream announced about a quota before any refusal: the last grant that it accepts, and until when."""

import math

from nanonets_proxy.core.ratelimit.rate_limit_fields import Advice


class AnnouncedQuota:
    """Holds back the grants that the upstream would refuse, as it announced."""

    __slots__ = ("_last_allowed", "until_s")

    def __init__(self) -> None:
        self._last_allowed = 0
        self.until_s = -math.inf
        """Until then, the upstream accepts no grant after number `_last_allowed`."""

    def holds(self, granted: int, now: float) -> bool:
        """Returns whether the next grant must wait; `granted` is the number of grants so far."""
        return now < self.until_s and granted >= self._last_allowed

    def note_advice(self, serial: int, advice: Advice, now: float) -> None:
        """Notes what the response to grant number `serial` announced."""
        if advice.remaining is not None:
            # The upstream counts requests about in the order of their grants.
            self._last_allowed, self.until_s = serial + advice.remaining, now + advice.resets_in_s
