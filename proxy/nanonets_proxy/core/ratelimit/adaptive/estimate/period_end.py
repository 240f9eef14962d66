"""When the present period began, and when it ends, according to the estimate.

Closures end with the period: `closure_timer.py` asks.
"""

import math

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import is_usual, likely_period_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import GUARD, LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.probe_schedule import SMALL_COUNT


def period_start_s(estimate: LimitEstimate) -> float | None:
    """Returns when the present period began; None if that is unknown.

    Without hints, a period counts from the refusal at the earliest: it may have admitted fewer than the count.
    """
    window = estimate.window
    if not estimate.known:
        return window.first_known_s
    nth_s = window.nth_newest_s(int(window.count))
    return None if nth_s is None else max(nth_s, estimate.refused_s)


def estimated_end_s(estimate: LimitEstimate) -> float:
    """Returns when the period ends, by the proven window; -inf if nothing is proven."""
    before, window = estimate.before_raise, estimate.window
    if before is not None:
        count, length_s = before.count, before.period_s
    elif estimate.proven:
        count, length_s = window.count, window.counted_for_s
    else:
        return -math.inf
    start_s = window.nth_newest_s(int(count))
    return -math.inf if start_s is None else start_s + length_s


def has_room_at_s(estimate: LimitEstimate) -> float:
    """Returns when the period ends, or has room again if the quota varies; -inf if that is unknown."""
    if not estimate.quota_varies:
        return estimated_end_s(estimate)
    frees_at_s = estimate.window.frees_at_s  # how many units the refused request needs is unknown
    return frees_at_s if frees_at_s < math.inf else -math.inf


def _window_end_s(estimate: LimitEstimate) -> float:
    """Returns when the window has room again, proven or not; -inf if it is empty."""
    window = estimate.window
    start_s = window.nth_newest_s(int(window.count))
    return -math.inf if start_s is None else start_s + window.counted_for_s


def expected_end_s(estimate: LimitEstimate, closure: Closure) -> float:
    """Returns when the period ends, if the hint of the closure is in whole seconds: up to a second earlier."""
    granted_at_s, hinted_s = closure.granted_at_s, closure.opens_at_s
    earliest_s = hinted_s - 1.0 - 2 * estimate.refusal_delay_s
    if estimate.known:
        start_s = period_start_s(estimate)
        end_s = max(estimated_end_s(estimate), _window_end_s(estimate))
    else:
        start_s, end_s = estimate.window.run_start_s(closure.max_gap_s, closure.granted_at_s), -math.inf
    if end_s <= earliest_s and start_s is not None:  # the hint tells of a longer period
        period_s = likely_period_s(hinted_s - start_s, granted_at_s - start_s, 1.0)
        end_s = start_s + period_s + min(estimate.refusal_delay_s / 2, GUARD * period_s)
    return end_s if earliest_s < end_s < hinted_s else hinted_s


def note_early_end(estimate: LimitEstimate, by_s: float, now: float) -> None:
    """Notes that a period ended before the estimate says so: a probe of this instant was accepted.

    A usual estimate stays, since the window may be on the clock, and have begun before the burst. Any other period
    is no longer than the time since the burst.
    """
    window = estimate.window
    began_s = window.nth_newest_s(window.count + 1)  # the newest request is the probe
    if estimate.known and not is_usual(window.period_s) and began_s is not None:
        estimate.min_period_s = min(window.period_s, by_s - began_s)
        estimate.set_window(window.count, estimate.min_period_s)
    estimate.period_ended(by_s, now)


def few_accepted(estimate: LimitEstimate, closure: Closure) -> bool:
    """Returns whether some requests of the burst count, but fewer than `SMALL_COUNT`."""
    first_s = estimate.window.run_start_s(closure.max_gap_s, closure.granted_at_s)
    return first_s is not None and estimate.window.granted_since(first_s) < SMALL_COUNT
