"""Which refusals may concern only the refused request, where a limit of 10 in 10 s is proven."""

import math

import pytest

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.doubtful_refusal import DoubtfulRefusal
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.long_quota import FIRST_DISTANCE_S
from nanonets_proxy.core.ratelimit.tickets import Ticket


def _refusal(
    hint_s: float | None, *, refusals: int = 1, doubts: int = 0, quota_used_up: bool = False
) -> DoubtfulRefusal:
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
    limit.state = LimitState.LEARNED
    limit.estimate.set_known(10, 10.0, 10)
    ticket = Ticket("account", math.inf, "a")
    ticket.refusals, ticket.doubts = refusals, doubts
    return DoubtfulRefusal(ticket, limit, hint_s, quota_used_up, expects_own=False)


@pytest.mark.parametrize(
    ("refusals", "hint_s", "is_in_doubt"),
    [
        (1, 3.0, False),
        (2, 3.0, True),
        (1, 15.0, False),
        (1, 15.1, True),
        (1, None, False),
        (2, None, False),
        (3, None, True),
        (8, 2.0, False),
        (9, 2.0, True),
    ],
)
def test_a_refusal_is_in_doubt_if_it_is_repeated_or_its_hint_is_odd(
    refusals: int, hint_s: float | None, is_in_doubt: bool
) -> None:
    assert _refusal(hint_s, refusals=refusals).is_in_doubt == is_in_doubt


@pytest.mark.parametrize(
    ("hint_s", "doubts", "held_s"),
    [(None, 0, 1.0), (0.2, 0, 1.0), (5.0, 0, 5.0), (5.0, 2, 20.0), (60.0, 6, 3600.0), (1.0, 12, 256.0)],
)
def test_a_ticket_is_held_for_twice_as_long_after_each_doubt(
    hint_s: float | None, doubts: int, held_s: float
) -> None:
    assert _refusal(hint_s, doubts=doubts).held_s == held_s


@pytest.mark.parametrize(("hint_s", "held_s"), [(None, FIRST_DISTANCE_S), (86_400.0, 86_400.0)])
def test_a_refusal_that_says_that_a_quota_is_used_up_is_always_in_doubt(
    hint_s: float | None, held_s: float
) -> None:
    refusal = _refusal(hint_s, quota_used_up=True)
    assert refusal.is_in_doubt
    assert refusal.held_s == held_s
