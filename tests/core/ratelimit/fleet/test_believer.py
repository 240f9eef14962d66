"""Which leader's beliefs count."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.fleet.believer import Believer

BELIEVERS = st.builds(Believer, st.integers(0, 9), st.integers(1, 9), st.sampled_from([0.0, 30.0, 90.0, 200.0]))
OF_FLEET = Believer(epoch=5, replicas=3, heard_at_s=100.0)


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        (Believer(6, 3, 101.0), True),  # the next leader
        (Believer(6, 2, 101.0), True),  # the next leader, after the first one died
        (Believer(4, 3, 101.0), False),
        (Believer(6, 1, 101.0), False),  # alone on another server
        (Believer(4, 6, 101.0), True),  # the larger part of the fleet
        (Believer(6, 1, 160.5), True),  # the others were gone for long
        (Believer(6, 9, 39.5), False),
    ],
)
def test_a_leader_counts_before_the_one_of_the_fleet(other: Believer, *, counts: bool) -> None:
    assert other.counts_before(OF_FLEET) is counts
    assert OF_FLEET.counts_before(other) is not counts


@given(BELIEVERS, BELIEVERS)
def test_of_two_leaders_one_counts(one: Believer, two: Believer) -> None:
    assume(one.epoch != two.epoch)
    assert one.counts_before(two) is not two.counts_before(one)


@given(BELIEVERS, st.floats(-1000, 1000))
def test_only_differences_of_instants_matter(one: Believer, by_s: float) -> None:
    later = replace(one, heard_at_s=one.heard_at_s + by_s)
    other = replace(OF_FLEET, epoch=10, heard_at_s=OF_FLEET.heard_at_s + by_s)
    assume(abs(abs(one.heard_at_s - OF_FLEET.heard_at_s) - 60.0) > 1e-6)
    assert later.counts_before(other) is one.counts_before(replace(OF_FLEET, epoch=10))
