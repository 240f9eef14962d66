"""What a replica counts as its part of what the fleet has used."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.fleet.grant_log import MAX_SCOPES
from nanonets_proxy.core.ratelimit.fleet.use import FleetUse, Grant, summarize

AGES = st.lists(st.tuples(st.floats(0, 8), st.integers(1, 300)), max_size=60)


def told(*ages: Grant, epoch: int = 7, now: float = 100.0) -> FleetUse:
    use = FleetUse()
    use.note("a", ages, epoch, now)
    return use


def test_grants_of_about_the_same_age_are_one_group() -> None:
    ages = [(3.9, 1), (3.8, 2), (1.0, 1), (0.9, 1), (4.0, 5)]
    assert summarize(ages, 4.0) == [(3.8, 3), (1.0, 1), (0.9, 1)]
    assert summarize([], 4.0) == []


@given(AGES)
def test_a_summary_has_all_units_of_the_period_and_makes_no_grant_older(ages: list[Grant]) -> None:
    groups = summarize(ages, 4.0)
    assert len(groups) <= 16
    assert groups == sorted(groups, reverse=True)
    for since_s in (0.5, 2.0, 4.0):
        assert sum(units for age_s, units in groups if age_s < since_s) >= sum(
            units for age_s, units in ages if age_s < since_s
        )
    assert sum(units for _, units in groups) == sum(units for age_s, units in ages if age_s < 4.0)


def test_each_replica_counts_an_equal_part() -> None:
    use = told((3.0, 16), (1.0, 8))
    assert use.part("a", [], 8, 0.0) == [(97.0, 2), (99.0, 1)]
    assert use.part("a", [], 5, 0.0) == [(97.0, 2), (99.0, 2)]  # 4.8, rounded down
    assert use.part("a", [], 5, 0.5) == [(97.0, 3), (99.0, 2)]
    assert told().part("a", [], 8, 0.9) == []


def test_its_own_grants_count_which_the_leader_did_not_know() -> None:
    own = [(98.0, 1, 7), (98.5, 2, 6), (100.5, 3, 7), (100.6, 4, 0)]
    assert told((3.0, 2)).part("a", own, 2, 0.0) == [(97.0, 1), (98.5, 2), (100.5, 3), (100.6, 4)]


@given(AGES.filter(bool), st.integers(1, 24))
def test_the_parts_of_all_replicas_add_up(ages: list[Grant], replicas: int) -> None:
    use = told(*summarize(ages, 10.0))
    total = sum(units for _, units in ages)
    parts = [sum(units for _, units in use.part("a", [], replicas, n / replicas)) for n in range(replicas)]
    assert sum(parts) == pytest.approx(total, abs=1.01)  # evenly spread chances round as they do on average
    assert max(parts) - min(parts) <= 1
    assert all(part == math.floor(part) for part in parts)


def test_the_scope_that_was_told_first_is_forgotten() -> None:
    use = FleetUse()
    for number in range(MAX_SCOPES + 1):
        use.note(str(number), [], 7, 100.0)
    assert "0" not in use
    assert "1" in use
    use.note("1", [(1.0, 3)], 8, 101.0)
    use.note("x", [], 8, 101.0)
    assert "2" not in use
    assert use.part("1", [], 1, 0.0) == [(100.0, 3)]


def test_only_the_leader_of_the_same_epoch_can_have_told_a_grant() -> None:
    use = told((1.0, 1), epoch=7, now=100.0)
    assert use.has("a", 99.0, 7)
    assert use.has("a", 100.0, 7)
    assert not use.has("a", 100.1, 7)  # granted after the leader told
    assert not use.has("a", 99.0, 6)
    assert not use.has("b", 99.0, 7)
