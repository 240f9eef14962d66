"""What other gates know of a scope that they share with this one."""

from collections.abc import Iterable

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit

_SAME_CLOSURE_S = 0.1  # other gates hear of a closure a little later


def merge(limit: Limit, grants: Iterable[tuple[float, float]], opens_at_s: float) -> None:
    """Notes the grants of another gate as (instant, cost), and when a closure ends.

    A closure that ends at about the same time as a known one is the same closure, and teaches nothing new.
    """
    limit.estimate.window.merge(grants)
    if opens_at_s > max(limit.opens_at_s, limit.timer.hinted_end_s) + _SAME_CLOSURE_S:
        limit.close(opens_at_s)
