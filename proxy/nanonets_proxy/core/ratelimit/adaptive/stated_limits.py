"""The limits of one scope that nobody must learn: the settings or the upstream state them."""

import math

from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit


class StatedLimits:
    """The strictest stated limit is the upper bound of the estimate.

    An announcement holds until the upstream announces something else. One scope may join endpoints with different
    limits, so a higher limit replaces a lower one only when nothing announced the lower one for one of its periods.
    """

    __slots__ = ("_announced", "_announced_at_s", "_configured", "strictest")

    def __init__(self, configured: StaticLimit | None) -> None:
        """Takes the limit from the settings; None: they have none for this scope."""
        self._configured = configured
        self._announced: StaticLimit | None = None
        self._announced_at_s = -math.inf
        self.strictest = configured

    def configure(self, limit: StaticLimit | None) -> bool:
        """Applies the limit of changed settings. Returns whether it differs from the previous one."""
        if limit == self._configured:
            return False
        self._configured = limit
        self._choose()
        return True

    def announce(self, limit: StaticLimit, now: float) -> bool:
        """Applies a limit that the upstream announced. Returns whether the strictest limit is another one now."""
        previous, strictest = self._announced, self.strictest
        if previous is not None and limit.count > previous.count and now < self._announced_at_s + previous.period_s:
            return False
        self._announced, self._announced_at_s = limit, now
        self._choose()
        return self.strictest != strictest

    def _choose(self) -> None:
        stated = [known for known in (self._configured, self._announced) if known is not None]
        self.strictest = min(stated, key=lambda known: known.count, default=None)
