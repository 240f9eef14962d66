"""Which tickets may not wait, and when the callers of refused tickets may come back."""

import math

from nanonets_proxy.core.ratelimit.adaptive.forecast import predicted_wait_s
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scope_state import ScopeState
from nanonets_proxy.core.ratelimit.tickets import Reason, Rejection, Ticket, TicketState

MIN_RETRY_AFTER_S = 1.0
"""The smallest Retry-After: even the queue of an open scope needs time to get shorter."""

_FORECAST_TRUST = 0.8  # a ticket that can wait for this share of its forecast is not rejected

_NEW = TicketState.NEW  # in Python 3.11 each access to a member through its enum costs a call


def rejection_of(
    ticket: Ticket, scope: ScopeState, policy: GatePolicy, waiting: int, now: float
) -> Rejection | None:
    """Returns the rejection of a ticket, or None if the ticket may wait. Sets the forecast of a new ticket.

    `waiting` is the number of waiting tickets of all scopes. Only new tickets count against the bounds of the
    queue.
    """
    limit, queue = scope.limit, scope.queue
    if ticket.cost > 1 and limit.grants.is_too_large(ticket.cost):
        return Rejection(Reason.LARGER_THAN_LIMIT, math.inf, queue.position(ticket))
    if ticket.refusals and (ticket.must_end or ticket.quota_used_up):
        return _reject(Reason.REFUSED_ALONE if ticket.must_end else Reason.QUOTA_USED_UP, scope, ticket, now)
    if scope.quota is not None and scope.quota_is_used_up(now) and limit.grant_kind(now) is None:
        return _reject(Reason.QUOTA_USED_UP, scope, ticket, now)
    forecast_s = math.nan
    if limit.estimate.proven:
        forecast_s = predicted_wait_s(limit, queue.units_up_to(ticket, queue.position(ticket)), now)
    earliest_s = max(limit.opens_at_s, ticket.held_until_s)
    trusted_s = 0.0 if policy.is_share else _FORECAST_TRUST * forecast_s
    if ticket.deadline_s < earliest_s or now + trusted_s > ticket.deadline_s:
        return _reject(Reason.CANNOT_BE_IN_TIME, scope, ticket, now)
    if ticket.state is _NEW:
        if waiting >= policy.max_waiting:
            return _reject(Reason.QUEUE_FULL, scope, ticket, now)
        most = policy.max_waiting_per_lane
        if waiting >= most and scope.waiting_in(ticket.lane) >= most:
            return _reject(Reason.LANE_FULL, scope, ticket, now)
        ticket.forecast_s = forecast_s
    return None


def retry_after_s(scope: ScopeState, ticket: Ticket, now: float) -> float:
    """Returns the predicted wait of a ticket that came now, and at least `MIN_RETRY_AFTER_S`."""
    queue = scope.queue
    forecast_s = predicted_wait_s(scope.limit, queue.units_up_to(ticket, queue.position(ticket)), now)
    earliest_s = max(scope.opens_at_s, ticket.held_until_s)
    return max(MIN_RETRY_AFTER_S, earliest_s - now, 0.0 if math.isnan(forecast_s) else forecast_s)


def _reject(reason: Reason, scope: ScopeState, ticket: Ticket, now: float) -> Rejection:
    return Rejection(reason, retry_after_s(scope, ticket, now), scope.queue.position(ticket))
