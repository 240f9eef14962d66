"""A limit as a value that outlives the process, and back."""

import math

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import ProvenWindow
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.hints.retry_hint import MAX_HINT_S
from nanonets_proxy.core.ratelimit.snapshot import MAX_GRANTS_OF_SCOPE, ScopeSnapshot, unknown

_REMEMBERED_S = 3600.0  # a burst that the first refusal ends is younger


def take_snapshot(limit: Limit, scope: str, now: float) -> ScopeSnapshot | None:
    """Returns a limit as a value; None if there is nothing to remember: no limit, closure or recent request."""
    estimate = limit.estimate
    window = estimate.window
    opens_at_s = limit.opens_at_s
    if limit.state in (LimitState.CLOSED, LimitState.PROBING):  # only this gate may try before the end of the hint
        opens_at_s = max(opens_at_s, limit.timer.hinted_end_s)
    opens_in_s = min(max(0.0, opens_at_s - now), MAX_HINT_S)
    if not estimate.known:
        grants = window.grants_since(now - _REMEMBERED_S)[-MAX_GRANTS_OF_SCOPE:]
        return unknown(scope, opens_in_s, _ages(grants, now)) if opens_in_s or grants else None
    # A raise that has not held yet does not outlive its gate: another one could not undo it.
    known = estimate.before_raise or ProvenWindow(window.count, window.period_s, estimate.proven)
    used = math.ceil(window.used(now))
    # A lesson looks at the period before this one too.
    grants = window.grants_since(now - 2 * window.counted_for_s)[-MAX_GRANTS_OF_SCOPE:]
    all_count = len(grants) < MAX_GRANTS_OF_SCOPE or grants[0][0] + window.counted_for_s <= now
    return ScopeSnapshot(
        scope=scope,
        count=known.count,
        period_s=known.period_s,
        proven=known.proven,
        concurrency_limit=None if estimate.concurrency.limit == math.inf else estimate.concurrency.limit,
        used=used,
        newest_age_s=now - window.newest_s if used else 0.0,
        opens_in_s=opens_in_s,
        pause_periods=estimate.window_probes.pause_periods,
        probe_in_s=min(max(0.0, estimate.window_probes.due_at_s - now), MAX_HINT_S),
        probe_refusals=estimate.window_probes.refusals,
        probe_step=estimate.window_probes.step_size,
        refused_period_s=estimate.window_probes.refused_period_s,
        hints_are_exact=estimate.hints.are_exact,
        latest_hint_s=min(estimate.hints.latest_s, MAX_HINT_S),
        refusal_delay_s=estimate.refusal_delay_s,
        grants=_ages(grants, now) if all_count else (),
    )


def _ages(grants: list[tuple[float, float]], now: float) -> tuple[tuple[float, float], ...]:
    return tuple((now - granted_s, cost) for granted_s, cost in grants)


def restore_snapshot(limit: Limit, snapshot: ScopeSnapshot, now: float, away_s: float) -> None:
    """Applies a snapshot taken `away_s` ago to a new limit. A stated limit stays the upper bound."""
    if snapshot.count is not None:
        _restore_window(limit, snapshot, snapshot.count, now - away_s)
    window = limit.estimate.window
    for age_s, cost in snapshot.grants:
        window.add(now - away_s - age_s, cost)
    if snapshot.grants:
        limit.last_grant_s = window.newest_s
    if snapshot.opens_in_s:  # requests were refused: this is no cold start
        limit.slow_start.restart(1)
    if snapshot.opens_in_s > away_s:
        limit.opens_at_s = now + snapshot.opens_in_s - away_s
        limit.state = LimitState.CLOSED


def _restore_window(limit: Limit, snapshot: ScopeSnapshot, count: float, saved_at_s: float) -> None:
    estimate, stated = limit.estimate, limit.stated.strictest
    period_s = snapshot.period_s
    if stated is not None:
        count, period_s = min(count, stated.count), max(period_s, stated.period_s)
    estimate.refusal_delay_s = snapshot.refusal_delay_s
    estimate.set_known(count, period_s, min(snapshot.proven, count))
    # Not at once: what the requests of the current period met is not known.
    probe_at_s = saved_at_s + max(snapshot.probe_in_s, period_s)
    estimate.window_probes.restore(
        snapshot.pause_periods,
        probe_at_s,
        snapshot.probe_refusals,
        snapshot.probe_step,
        snapshot.refused_period_s,
    )
    estimate.hints.are_exact, estimate.hints.latest_s = snapshot.hints_are_exact, snapshot.latest_hint_s
    estimate.concurrency.limit = (
        math.inf if snapshot.concurrency_limit is None else max(1.0, snapshot.concurrency_limit)
    )
    for _ in range(0 if snapshot.grants else min(snapshot.used, int(count))):
        estimate.window.add(saved_at_s - snapshot.newest_age_s)
    limit.state = LimitState.LEARNED
