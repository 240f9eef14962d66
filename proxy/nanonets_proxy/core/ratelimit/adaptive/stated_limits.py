"""The limits of one scope that nobody must learn: the settings or the upstream state them."""

from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit


class StatedLimits:
    """The strictest stated limit is the upper bound of the estimate."""

    __slots__ = ("_announced", "_configured", "strictest")

    def __init__(self, configured: StaticLimit | None) -> None:
        """Takes the limit from the settings; None: they have none for this scope."""
        self._configured = configured
        self._announced: StaticLimit | None = None
        self.strictest = configured

    def configure(self, limit: StaticLimit | None) -> bool:
        """Applies the limit of changed settings. Returns whether it differs from the previous one."""
        if limit == self._configured:
            return False
        self._configured = limit
        stated = [known for known in (limit, self._announced) if known is not None]
        self.strictest = min(stated, key=lambda known: known.count, default=None)
        return True

    def announce(self, limit: StaticLimit) -> bool:
        """Applies a limit that the upstream announced. Returns whether the strictest limit is another one now."""
        if limit == self._announced:
            return False
        self._announced = limit
        if self.strictest is not None and self.strictest.count < limit.count:
            return False
        self.strictest = limit
        return True
