"""The lesson of a closure: how it changes the estimate.

The lesson is drawn once per closure, when the outcome of each earlier request is known.

| refused request | when | conclusion |
|---|---|---|
| the first of all | with a hint that names a period | that period, and the number that it admitted |
| | any other | count: the accepted part of the burst; period: the one that admitted the most per second |
| any | only the shortest intervals between requests were refused | a least interval (`interval_fit.py`) |
| any but a limit probe | a usual period explains all refusals | count and period of that fit (`period_fit.py`) |
| a limit probe, or any request during an unproven raise | | undo the raise; the next probe is later and smaller |
| any, with as many in flight as allowed | not at a known period end | that number is the concurrency limit |
| the recovery probe | twice in a row, after the end of the hint | the period lasts up to the end of the next hint |
| any other | just after a period that varies little, not in a burst | the period is longer by that much |
| | the period admitted some requests | that number, or the most of the last eight, is the count |
| | the period admitted none | the period is longer |

Each length is corrected to the likely one (`likely_period.py`), since hints are rounded up.
"""

import math
from itertools import takewhile

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.likely_period import (
    likely_period_s,
    rounding_s,
    usual_periods_s,
)
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_end import period_start_s
from nanonets_proxy.core.ratelimit.adaptive.estimate.period_fit import PeriodEnd
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import LIMIT_PROBES, GrantKind

_SAME_PERIOD = 1.1  # up to this many periods, a refusal means a longer period, not a smaller count
_SHORTER = 0.9  # a found interval replaces the estimate if it is at most this share of a request's time
_MAX_FIRST_PERIOD = 10.0  # times the first closure without a hint


def learn_from(estimate: LimitEstimate, closure: Closure, now: float) -> None:
    """Corrects the estimate after a closure. Each request sent before it must have settled or timed out."""
    window, concurrency = estimate.window, estimate.concurrency
    estimate.closed()
    ends_at_s = closure.granted_at_s + closure.closed_s
    at_period_end = estimate.hints.note(closure, ends_at_s, window)
    if not at_period_end and concurrency.explains(closure.kind, closure.in_flight):
        concurrency.refused(closure.in_flight, closure.closed_s, now)
        return
    if _learn_interval(estimate, closure, now):
        return
    fit = None
    if closure.hinted and not closure.names_period:
        end = PeriodEnd(closure.granted_at_s, ends_at_s - closure.excess_s, ends_at_s)
        proven = 0.0 if estimate.min_period_s else estimate.proven
        fit = estimate.fit.note(end, window, estimate.refusal_delay_s / 2, proven=proven)
    if not estimate.known:
        _learn_window(estimate, closure, ends_at_s, now)
        return
    if estimate.learn_fit(fit, closure, now):
        return
    start_s = period_start_s(estimate)
    if start_s is None:
        return
    if not closure.hinted and closure.kind is not GrantKind.RECOVERY_PROBE:
        estimate.refused_s = closure.granted_at_s
    # In a short period, the rounding of a hint is too large to tell where the period ends.
    earliest_end_s = (
        ends_at_s - closure.excess_s if window.period_s > 2 * closure.excess_s else closure.granted_at_s
    )
    admitted = window.granted_since(earliest_end_s - window.period_s)
    needed_s = _needed_s(closure, ends_at_s - start_s, closure.granted_at_s - start_s, window.period_s)
    if closure.kind in LIMIT_PROBES or estimate.before_raise is not None:
        least_s = max(closure.granted_at_s, ends_at_s - closure.excess_s) - start_s
        _undo_raise(estimate, closure, admitted, least_s, needed_s, now)
    elif closure.kind is GrantKind.RECOVERY_PROBE:
        if not estimate.proven and needed_s > window.period_s and not closure.was_early:
            estimate.set_window(window.count, needed_s)
        estimate.proven = 0.0
    elif window.period_s < needed_s <= _SAME_PERIOD * window.period_s and not _is_new_period(estimate, closure):
        estimate.set_window(window.count, needed_s)
        estimate.min_period_s = max(closure.granted_at_s - start_s, needed_s - closure.excess_s)
    elif admitted:
        estimate.lower_count(admitted, now)
    else:
        estimate.set_window(window.count, needed_s)
    if not at_period_end:
        concurrency.suspect(closure, admitted)


def _learn_interval(estimate: LimitEstimate, closure: Closure, now: float) -> bool:
    """Learns a least interval between requests, if it admits clearly more than a window of several requests."""
    window = estimate.window
    interval_s = estimate.interval_fit.note(closure.granted_at_s, window, estimate.refusal_delay_s / 2)
    if (
        interval_s is None
        or window.count == 1
        or interval_s * window.count >= _SHORTER * window.period_s
        or estimate.is_static
    ):
        return False
    estimate.before_raise = None
    estimate.learn_window(1, interval_s, closure, now)
    return True


def _is_new_period(estimate: LimitEstimate, closure: Closure) -> bool:
    """Returns whether a request that was refused just after a period belongs to the next one, which admits fewer.

    That is likely if the quota varies. It is certain if a burst of half of the count was admitted just before, or
    if the hint names the present period.
    """
    window = estimate.window
    if closure.names_period and closure.closed_s == window.period_s:
        return True
    just_before_s = closure.granted_at_s - (_SAME_PERIOD - 1) * window.period_s
    return estimate.quota_varies or 2 * window.granted_since(just_before_s) >= window.count


def _needed_s(closure: Closure, longest_s: float, refused_s: float, period_s: float) -> float:
    """Returns the length of a period that explains the refusal: above `refused_s`, and `longest_s` at most."""
    needed_s = likely_period_s(longest_s, refused_s, closure.excess_s)
    vague = closure.excess_s > 0 and (closure.hinted or closure.kind is not GrantKind.RECOVERY_PROBE)
    just_after_s = _SAME_PERIOD * period_s
    if vague and period_s <= refused_s <= just_after_s < needed_s and just_after_s > longest_s - closure.excess_s:
        return just_after_s
    return needed_s


def _learn_window(estimate: LimitEstimate, closure: Closure, ends_at_s: float, now: float) -> None:
    """Learns count and period from the grants alone, as after the first refusal."""
    window = estimate.window
    if closure.names_period:
        if admitted := window.granted_since(closure.granted_at_s - closure.closed_s):
            estimate.learn_window(admitted, closure.closed_s, closure, now)
            _suspect_concurrency(estimate, closure, admitted, now)
        return
    first_s = window.run_start_s(closure.max_gap_s, closure.granted_at_s)
    if first_s is None:
        return
    likely_s = likely_period_s(ends_at_s - first_s, closure.granted_at_s - first_s, closure.excess_s)
    period_s = _burst_period_s(window, closure, first_s, likely_s)
    if not closure.hinted:  # the first request may belong to an earlier period
        period_s = min(period_s, _MAX_FIRST_PERIOD * closure.closed_s)
    count = max(1, window.granted_since(first_s + likely_s - period_s))
    estimate.learn_window(count, period_s, closure, now)
    _suspect_concurrency(estimate, closure, count, now)


def _suspect_concurrency(estimate: LimitEstimate, closure: Closure, admitted: float, now: float) -> None:
    """Suspects a concurrency limit after the first refusal.

    With a hint in whole seconds, only a limit probe tells it from a window. So the first one may go at once.
    """
    estimate.concurrency.suspect(closure, admitted)
    if estimate.concurrency.limit < math.inf and rounding_s(closure.closed_s):
        estimate.window_probes.due_at_s = now


def _burst_period_s(window: SlidingWindow, closure: Closure, first_s: float, likely_s: float) -> float:
    """Returns, of the usual periods up to `likely_s`, the one that admitted the most requests per second."""
    if not closure.hinted:
        return likely_s
    end_s = first_s + likely_s
    usual_s = usual_periods_s(closure.closed_s - closure.excess_s)
    possible_s = [*takewhile(lambda period_s: period_s < likely_s, usual_s), likely_s]
    return max(possible_s, key=lambda period_s: window.granted_since(end_s - period_s) / period_s)


def _undo_raise(
    estimate: LimitEstimate, closure: Closure, admitted: float, least_s: float, needed_s: float, now: float
) -> None:
    """Undoes an unproven raise, and schedules the next probe.

    `least_s`: a period that explains the refusal is longer. `needed_s`: the likely length.
    """
    window, before, probes = estimate.window, estimate.before_raise, estimate.window_probes
    if closure.kind is GrantKind.COUNT_PROBE and estimate.quota_varies:
        estimate.note_admitted(min(admitted, window.count))
    # It also varies if several raises of the count were accepted before this refusal.
    quota_varies = estimate.quota_varies or (
        before is not None
        and closure.kind is not GrantKind.COUNT_PROBE
        and window.count >= before.count + 2
        and window.period_s == before.period_s
    )
    if closure.kind is GrantKind.PERIOD_PROBE:
        probes.period_refused(probes.shorter_period_s(window.period_s))
    elif before is not None and before.period_s > window.period_s:
        probes.period_refused(window.period_s)
        if closure.hinted and not closure.excess_s and window.period_s < needed_s < before.period_s / _SAME_PERIOD:
            # The period is shorter indeed, and an exact hint shows its length. What held before may still return.
            estimate.set_window(window.count, needed_s)
            probes.refused(now, needed_s)
            return
    if closure.kind is not GrantKind.COUNT_PROBE:
        estimate.undo_raise(admitted)
    first = not probes.refusals
    if quota_varies:
        probes.quota_varied(now, window.period_s)
    else:
        probes.refused(now, window.period_s)
    # A hint that names each period does not tell when the present period ends.
    if not closure.hinted or closure.names_period or closure.kind not in LIMIT_PROBES:
        return
    if abs(needed_s - window.period_s) <= 0.1 * window.period_s and closure.closed_s < 0.9 * window.period_s:
        estimate.hints.are_exact = True
    # The first count probe shows the whole length of a period. The first refusal showed only how a period ends. A
    # proven period that explains the refusal stays: hints in whole seconds leave a choice.
    stays = estimate.proven and least_s < window.period_s
    longer = first and needed_s > _SAME_PERIOD * window.period_s and not stays
    if closure.kind is GrantKind.COUNT_PROBE and (needed_s < window.period_s or longer):
        period_s = max(needed_s, estimate.min_period_s)
        if _SAME_PERIOD * period_s >= window.period_s:
            estimate.set_window(window.count, period_s)
        elif period_s > probes.refused_period_s:
            # The hint may be odd, or the period may have begun before its first request: a refusal undoes this.
            estimate.try_period(period_s, now)
