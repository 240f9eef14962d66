"""The log of a replica's grants."""

import math
from collections import Counter

from nanonets_proxy.core.ratelimit.fleet import grant_log
from nanonets_proxy.core.ratelimit.fleet.grant_log import KEPT_S, GrantLog


def test_a_leader_is_told_only_what_it_does_not_know() -> None:
    log = GrantLog()
    log.add("a", 10.0, 1, 0)
    log.add("a", 11.0, 2, 7)
    assert log.ages(12.0, 7, {}) == {"a": [(2.0, 1, 1)]}
    assert log.ages(12.0, 8, {}) == {"a": [(2.0, 1, 1), (1.0, 2, 2)]}
    log.told(8)
    assert log.ages(12.0, 8, {}) == {}
    assert log.ages(12.0, 9, {}) == {"a": [(2.0, 1, 1), (1.0, 2, 2)]}


def test_grants_older_than_the_period_are_not_told() -> None:
    log = GrantLog()
    log.add("a", 0.0, 1, 0)
    log.add("a", 5.0, 1, 0)
    assert log.ages(6.0, 1, {"a": 4.0}) == {"a": [(1.0, 1, 2)]}
    assert log.ages(6.0, 1, {"a": math.inf}) == {"a": [(6.0, 1, 1), (1.0, 1, 2)]}
    assert log.ages(KEPT_S + 1, 1, {}) == {"a": [(KEPT_S - 4, 1, 2)]}


def test_of_very_many_grants_the_latest_are_told() -> None:
    log = GrantLog()
    for scope in range(20):
        for _ in range(1200):
            log.add(str(scope), 1.0, 1, 0)
    ages = log.ages(2.0, 1, {})
    assert {scope: len(of_scope) for scope, of_scope in ages.items()} == {str(n): 1000 for n in range(10, 20)}
    assert Counter(scope for scope, *_ in log.entries(2.0, {})) == {str(n): 1000 for n in range(10, 20)}


def test_the_scopes_that_were_unused_for_the_longest_time_are_forgotten() -> None:
    log = GrantLog()
    for number in range(grant_log.MAX_SCOPES):
        log.add(str(number), 1.0, 1, 0)
    log.add("0", 2.0, 1, 0)
    log.add("new", 2.0, 1, 0)
    ages = log.ages(2.0, 1, {})
    assert len(ages) == grant_log.MAX_SCOPES
    assert "1" not in ages
    assert ages["0"] == [(1.0, 1, 1), (0.0, 1, grant_log.MAX_SCOPES + 1)]


def test_grants_that_are_no_longer_told_are_forgotten() -> None:
    log = GrantLog()
    for at_s in range(10):
        log.add("a", float(at_s), 1, 0)
        log.add("b", float(at_s), 1, 0)
    log.prune(12.0, {"a": 4.0, "c": 1.0})
    assert log.ages(12.0, 1, {}) == {
        "a": [(4.0, 1, 17), (3.0, 1, 19)],
        "b": [(12.0 - at_s, 1, 2 * at_s + 2) for at_s in range(10)],
    }
    log.prune(KEPT_S + 5, {})
    assert log.ages(KEPT_S + 5, 1, {}) == {
        "a": [(KEPT_S - 3, 1, 17), (KEPT_S - 4, 1, 19)],
        "b": [(KEPT_S + 5 - at_s, 1, 2 * at_s + 2) for at_s in range(5, 10)],
    }
    log.prune(2 * KEPT_S, {})
    assert log.ages(10.0, 1, {}) == {}


def test_a_cost_that_becomes_known_later_is_corrected() -> None:
    log = GrantLog()
    log.add("a", 1.0, 5, 0)
    log.add("a", 2.0, 5, 0)
    log.correct_cost("a", 2.0, 5, 20)
    log.correct_cost("a", 1.0, 6, 7)  # another request of that moment
    log.correct_cost("a", 3.0, 5, 7)
    log.correct_cost("b", 2.0, 5, 7)
    assert log.ages(3.0, 1, {}) == {"a": [(2.0, 5, 1), (1.0, 20, 2)]}


def test_all_grants_that_may_still_count_are_known_with_the_leader_that_knows_them() -> None:
    log = GrantLog()
    log.add("a", 1.0, 1, 0)
    last = log.add("a", 3.0, 2, 7)
    log.add("b", 3.0, 1, 7)
    assert log.entries(4.0, {"a": 2.0}) == [("a", 1.0, 2, 7), ("b", 1.0, 1, 7)]
    log.drop(last)
    assert log.entries(4.0, {}) == [("b", 1.0, 1, 7)]
    assert (log.grants("a"), log.grants("b"), log.grants("c")) == ([], [(3.0, 1, 7)], [])
