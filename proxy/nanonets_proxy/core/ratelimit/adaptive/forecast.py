"""How long the requests of a scope will wait."""

import math

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit


def predicted_wait_s(limit: Limit, units: float, now: float) -> float:
    """Returns how long it takes until this many more units have gone; nan if that is unknown."""
    estimate, quota = limit.estimate, limit.announced_quota
    if not estimate.proven:
        return math.nan
    opens_at_s = max(now, limit.opens_at_s)
    if quota.holds(estimate.window.granted_units, 1, now):
        opens_at_s = max(opens_at_s, quota.until_s)
    wait_s = max(estimate.window.forecast_at_s(units, opens_at_s) - now, 0.0)
    if limit.in_flight >= estimate.concurrency.limit:
        return max(wait_s, units * limit.grant_interval_s)
    return wait_s
