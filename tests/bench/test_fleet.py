"""What the fleet benchmark counts. These tests measure no time."""

import math

import pytest

from fleet.closures import Attempt, closures
from fleet.limits import learned, slowest_closure_s
from fleet.soaks.growth import lengths
from fleet.takeover import full_again_s
from fleet.upgrade import unready
from nanonets_proxy.core.ratelimit.fleet.grant_log import GrantLog
from nanonets_proxy.core.ratelimit.fleet.names import Names
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimits
from support.commands.ports import free_port


def test_a_replica_that_does_not_respond_counts_as_not_ready() -> None:
    assert unready(f"http://127.0.0.1:{free_port()}") == "no_response"


def test_a_closure_ends_with_the_last_request_that_is_refused_soon_after_another_one() -> None:
    tests = [(5.0, 429), (5.02, 200)]
    assert slowest_closure_s([(1.0, 200), (1.03, 429), (1.01, 429), (1.08, 429), *tests]) == pytest.approx(0.07)
    assert slowest_closure_s([(1.0, 429), (1.01, 200), (1.3, 429)]) == 0.0


def test_a_log_names_the_limit_that_was_learned_last() -> None:
    event = {"event": "limit_learned", "concurrency_to": None, "count_to": 40, "period_to_s": 4.0}
    later = {**event, "timestamp": "2", "concurrency_to": 12}
    assert learned([{"event": "started"}]) == "nothing"
    assert learned([{**event, "timestamp": "1"}]) == "40 in 4 s"
    assert learned([later, {**event, "timestamp": "1"}]) == "12 in flight"


def test_a_closure_begins_when_a_replica_has_the_429_and_ends_with_the_first_admitted_request() -> None:
    before = [Attempt(0.90, 1.00, 429), Attempt(0.95, 1.05, 429), Attempt(0.96, 0.99, 200)]
    late = [Attempt(1.01, 1.02, 429), Attempt(1.04, 1.06, 429)]
    reopened = [Attempt(3.0, 3.1, 200), Attempt(3.01, 3.2, 429)]
    assert [(each.began_s, each.late) for each in closures(before + reopened)] == [(1.00, 0), (3.2, 0)]
    first, _ = closures(before + late + reopened)
    assert (first.late, first.lasted_s) == (2, pytest.approx(0.04))


def test_a_request_that_is_refused_long_after_a_closure_began_is_a_test_and_a_closure_of_its_own() -> None:
    found = closures([Attempt(0.9, 1.0, 429), Attempt(2.0, 2.1, 429)])
    assert [(each.began_s, each.lasted_s) for each in found] == [(1.0, 0.0), (2.1, 0.0)]


def test_the_share_of_a_dead_replica_is_in_use_again_in_the_first_full_second() -> None:
    admitted = [0.1 * n for n in range(100)] + [10.0, 10.5, 11.2] + [11.5 + 0.1 * n for n in range(20)]
    assert full_again_s(admitted, 10.0, 9.5) == pytest.approx(1.5)
    assert full_again_s(admitted, 5.0, 9.5) == 0.0
    assert full_again_s(admitted, 10.0, 30) == math.inf


def test_growth_is_counted_by_class_and_attribute_without_what_has_a_bound() -> None:
    names, log = Names(b"secret", "host", StaticLimits()), GrantLog()
    before = lengths([names, log])
    for number in range(50):
        names.lane(f"caller {number}")
        log.add("scope", float(number), 1.0, 0)
    grown = lengths([names, log]) - before
    assert grown["Names._hashes"] >= 50
    assert grown["GrantLog._grants"] == 1
    assert grown["bytes"] > 1000
