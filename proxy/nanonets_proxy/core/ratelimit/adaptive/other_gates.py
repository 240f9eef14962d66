"""What other gates know of a scope that they share with this one, and of permits that this one granted to them."""

import math
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


def await_report(limit: Limit, serial: int) -> float | None:
    """Lets a grant count as accepted without a response only once it is `reported`. Its 429 may come late.

    Returns after how many seconds without a response the other gate must report; None: it need not.
    """
    unconfirmed = limit.slow_start.unconfirmed
    if serial not in unconfirmed:
        return None
    unconfirmed[serial] = math.inf
    return limit.slow_start.timeout_s


def reported(limit: Limit, serial: int, now: float) -> None:
    """Notes that no response had come in time: a 429 would have. Ignores a grant that is not unconfirmed."""
    if serial in limit.slow_start.unconfirmed:
        limit.slow_start.accepted(serial, now)
        limit.accepted(serial, now)
