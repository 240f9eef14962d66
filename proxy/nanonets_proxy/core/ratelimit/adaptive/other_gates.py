"""What other gates know of a scope that they share with this one, and of permits that this one granted to them."""

from collections.abc import Iterable

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit

_SAME_CLOSURE_S = 0.1  # other gates hear of a closure a little later
_CONCURRENCY_PERIODS, _CONCURRENCY_MOST_S = 8.0, 60.0


def merge(limit: Limit, grants: Iterable[tuple[float, float]], opens_at_s: float) -> None:
    """Notes the grants of another gate as (instant, cost), and when a closure ends.

    A closure that ends at about the same time as a known one is the same closure, and teaches nothing new.
    """
    limit.estimate.window.merge(grants)
    if opens_at_s > max(limit.opens_at_s, limit.timer.hinted_end_s) + _SAME_CLOSURE_S:
        limit.close(opens_at_s)


def take_over(limit: Limit, now: float) -> None:
    """Prepares a gate that decides for the gates of a fleet from now on.

    The next probe for a higher limit waits for a period whose requests this gate knows all of. The fit is
    for first refusals, and those of a proven limit were others. A limit in a state file may have changed since.

    A probe for one more request in flight waits for longer: how many of them were refused is not known here, and a
    refusal closes the scope.
    """
    estimate = limit.estimate
    if estimate.known:
        period_s = estimate.window.counted_for_s
        estimate.window_probes.delay(now + period_s)
        estimate.concurrency.probes.delay(now + min(_CONCURRENCY_PERIODS * period_s, _CONCURRENCY_MOST_S))
    if estimate.proven:
        estimate.fit.stop()


def await_report(limit: Limit, serial: int, patience_s: float) -> float | None:
    """Lets a new grant count as accepted without a response once it is `reported`, as its 429 may come late.

    If no report comes, the grant counts as accepted `patience_s` later than others. Returns after how many seconds
    without a response the other gate must report; None: it need not.
    """
    slow_start = limit.slow_start
    if serial not in slow_start.unconfirmed:
        return None
    slow_start.postpone_timeout(serial, patience_s)
    return slow_start.timeout_s


def sent(limit: Limit, serial: int, granted_at_s: float, sent_at_s: float, cost: float) -> None:
    """Notes that another gate's request was not sent at the time of its grant."""
    limit.estimate.window.move(granted_at_s, cost, sent_at_s)
    limit.last_grant_s = max(limit.last_grant_s, sent_at_s)
    if serial in limit.slow_start.unconfirmed:
        limit.slow_start.postpone_timeout(serial, sent_at_s - granted_at_s)


def reported(limit: Limit, serial: int, now: float) -> None:
    """Notes that no response had come in time: a 429 would have. Ignores a grant that is not unconfirmed."""
    if serial in limit.slow_start.unconfirmed:
        limit.slow_start.accepted(serial, now)
        limit.accepted(serial, now)
