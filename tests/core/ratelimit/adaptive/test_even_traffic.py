"""Requests that a concurrency limit makes go evenly."""

import pytest

from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome


def test_a_limit_is_proven_and_raised_although_some_requests_are_always_unconfirmed() -> None:
    """Where requests go evenly, each is sent before the earlier ones are served."""
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
    limit.state, estimate = LimitState.LEARNED, limit.estimate
    estimate.set_known(10, 1.0, 5)
    estimate.concurrency.limit = 6
    estimate.hints.are_exact = True  # probes ask for a larger count
    limit.slow_start.restart(10)
    limit.slow_start.timeout_s = 1.0
    in_flight: list[tuple[float, int]] = []
    for now in (number / 20 for number in range(160)):
        while in_flight and in_flight[0][0] <= now:
            limit.served(in_flight.pop(0)[1], now)
        is_wanted = now > 1.5 or round(now * 20) % 2 == 0  # ten a second at first, and then more
        if is_wanted and (kind := limit.grant_kind(now)) is not None:
            in_flight.append((now + 0.25, limit.grant(kind, now)))
    assert estimate.proven >= 10
    assert estimate.window.count > 10


@pytest.mark.parametrize("outcome", [Outcome.UNUSED, Outcome.FAILED])
@pytest.mark.parametrize(("number", "proven"), [(0, 5), (9, 5), (10, 10)])
def test_a_request_that_was_not_served_proves_no_limit(outcome: Outcome, number: int, proven: int) -> None:
    """The first ten requests use up the window, and the last one is still unconfirmed."""
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
    limit.state, estimate = LimitState.LEARNED, limit.estimate
    estimate.set_known(10, 10.0, 5)
    estimate.concurrency.limit = 50
    limit.slow_start.timeout_s = 30.0
    serials = [limit.grant(GrantKind.UNPROVEN, 20.0) for _ in range(12)]
    limit.not_served(serials.pop(number), 20.0, outcome, 20.1, None)
    for serial in serials[:-1]:
        limit.served(serial, 20.3)
    assert len(limit.slow_start.unconfirmed) == 1
    assert estimate.proven == proven


def test_without_a_concurrency_limit_a_count_is_proven_once_no_request_is_unconfirmed() -> None:
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
    limit.state, estimate = LimitState.LEARNED, limit.estimate
    estimate.set_known(10, 10.0, 5)
    limit.slow_start.timeout_s = 30.0
    *serials, last = [limit.grant(GrantKind.UNPROVEN, 20.0) for _ in range(11)]
    for serial in serials:
        limit.served(serial, 20.3)
    assert estimate.proven == 5
    limit.served(last, 20.4)
    assert estimate.proven == 10
