"""Another client on the same quota, and a lowered limit: each transition by example, and properties."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.quota_watch import Accepted, QuotaChange, QuotaWatch

SHORT, SHARED, LOWERED = QuotaChange.SHORT, QuotaChange.SHARED, QuotaChange.LOWERED


def changes(*units: float, seconds: float = 10.0) -> list[QuotaChange | None]:
    """Returns what closures with these units show, one after the other."""
    watch = QuotaWatch()
    findings = [watch.note(Accepted(accepted, seconds)) for accepted in units]
    return [None if finding is None else finding.change for finding in findings]


def test_three_closures_are_learned_before_anything_is_short() -> None:
    assert changes(20, 20, 5) == [None] * 3
    assert changes(20, 20, 20, 5) == [None, None, None, SHORT]


@pytest.mark.parametrize(
    ("usual", "accepted", "is_short"),
    [(20, 18, True), (20, 19, False), (150, 135, True), (150, 136, False), (10, 9, False), (10, 8, True)],
)
def test_a_closure_is_short_if_a_tenth_and_two_units_are_missing(
    usual: float, accepted: float, is_short: bool
) -> None:
    assert (changes(usual, usual, usual, accepted)[-1] is SHORT) == is_short


def test_the_least_of_the_usual_closures_counts() -> None:
    assert changes(17, 20, 20, 17) == [None] * 4


def test_a_closure_counts_as_usual_until_sixteen_others_came() -> None:
    assert changes(17, *[20] * 15, 17)[-1] is None
    assert changes(17, *[20] * 16, 17)[-1] is SHORT


def test_while_closures_differ_much_nothing_is_short() -> None:
    assert changes(20, 20, 25, 20, 5)[-1] is None
    assert changes(20, 20, 24, 20, 5)[-1] is SHORT


def test_varying_parts_mean_another_client() -> None:
    assert changes(20, 20, 20, 12, 16)[-2:] == [SHORT, SHARED]
    assert changes(20, 20, 20, 12, 12, 9)[-3:] == [SHORT, None, SHARED]


def test_a_part_that_settles_means_a_lower_limit() -> None:
    assert changes(20, 20, 20, 12, 12, 12, 13)[-4:] == [SHORT, None, None, LOWERED]


def test_a_limit_that_is_lowered_in_mid_period_shows_a_first_part_that_is_too_large() -> None:
    assert changes(20, 20, 20, 15, 10, 10, 10)[-4:] == [SHORT, None, None, LOWERED]


def test_after_a_finding_the_new_part_is_learned() -> None:
    assert changes(20, 20, 20, 12, 12, 12, 12, 12, 12, 12, 9)[-4:] == [None, None, None, SHORT]


def test_a_closure_of_another_period_begins_anew() -> None:
    watch = QuotaWatch()
    for seconds, units in ((5.0, 20), (5.0, 20), (5.0, 20), (10.0, 20), (10.0, 20), (10.0, 20)):
        assert watch.note(Accepted(units, seconds)) is None
    assert watch.note(Accepted(12, 10.0)) is not None
    assert watch.note(Accepted(3, 1.0)) is None
    assert watch.note(Accepted(12, 10.0)) is None


def test_a_finding_has_the_figures() -> None:
    watch = QuotaWatch()
    for units in (20, 21, 22):
        watch.note(Accepted(units, 10.0))
    finding = watch.note(Accepted(12, 10.0))
    assert finding is not None
    assert (finding.usual, finding.since) == (Accepted(20, 10.0), (Accepted(12, 10.0),))


# --- what a closure shows, from the log of grants ----------------------------------------------


def window(count: float, period_s: float, *granted_s: float) -> SlidingWindow:
    made = SlidingWindow()
    made.set(count, period_s)
    for at_s in granted_s:
        made.add(at_s)
    return made


def accepted(
    grants: SlidingWindow,
    refused_s: float,
    hint_s: float | None,
    travel_s: float = 0.0,
) -> Accepted | None:
    watch = QuotaWatch()
    watch.refused(refused_s, hint_s)
    return watch._accepted(grants, refused_s, travel_s)


def test_an_exact_hint_tells_when_the_period_began() -> None:
    grants = window(20, 10.0, 9.0, 9.9, 10.0, 11.0, 12.0)
    assert accepted(grants, 12.0, 7.95) == Accepted(3, 10.0)
    assert accepted(grants, 12.0, 8.0) == Accepted(5, 10.0), "rounded up from 7 s, perhaps"
    assert accepted(grants, 12.0, None) is None, "nobody knows when the period began"
    assert accepted(window(20, 9.0, 9.0, 11.0), 12.0, 8.0) is None, "a rounded hint tells too little"


def test_a_request_that_was_granted_shortly_before_the_period_counts() -> None:
    grants = window(20, 10.0, 9.4, 9.6, 10.0)
    assert accepted(grants, 12.0, 7.95) == Accepted(1, 10.0)
    assert accepted(grants, 12.0, 7.95, travel_s=0.4) == Accepted(2, 10.0)
    assert accepted(grants, 12.0, 7.95, travel_s=9.0) == Accepted(2, 10.0), "at most a twentieth of the period"


@pytest.mark.parametrize(
    ("closures", "period_s", "counted"),
    [
        (3, 14.0, Accepted(2, 10.0)),
        (3, 15.0, Accepted(2, 10.0)),
        (3, 15.5, Accepted(3, 15.5)),
        (3, 9.8, Accepted(1, 9.8)),
        (2, 14.0, Accepted(3, 14.0)),
    ],
)
def test_a_longer_estimate_of_the_period_hides_no_other_client(
    closures: int, period_s: float, counted: Accepted
) -> None:
    watch = QuotaWatch()
    for _ in range(closures):
        watch.note(Accepted(20, 10.0))
    watch.refused(20.0, 0.05)
    assert watch._accepted(window(20, period_s, 8.0, 10.1, 19.0), 20.0, 0.0) == counted


def test_a_period_with_few_units_shows_nothing() -> None:
    assert accepted(window(9, 10.0, 10.0), 12.0, 7.95) is None
    assert accepted(window(10, 10.0, 10.0), 12.0, 7.95) == Accepted(1, 10.0)


def test_without_a_period_or_accepted_units_a_closure_shows_nothing() -> None:
    assert QuotaWatch().closed(SlidingWindow(), 0.0, 0.0) is None
    assert accepted(window(20, 0.0, 1.0), 1.0, 0.5) is None
    assert accepted(window(20, 10.0), 1.0, 0.5) is None


def test_the_end_of_a_closure_is_noted() -> None:
    watch = QuotaWatch()
    for _ in range(3):
        watch.note(Accepted(20, 10.0))
    watch.refused(5.0, 4.5)
    finding = watch.closed(window(20, 10.0, 1.0, 2.0), 5.0, 0.0)
    assert finding is not None
    assert finding.change is SHORT


# --- properties -------------------------------------------------------------------------------


class Watched(RuleBasedStateMachine):
    """A watch, beside a plain model of the usual closures."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = QuotaWatch()
        self.closures = 0
        self.open = False

    @rule(units=st.integers(1, 400), seconds=st.sampled_from([1.0, 10.0, 10.5]))
    def close(self, units: int, seconds: float) -> None:
        finding = self.watch.note(Accepted(units, seconds))
        self.closures += 1
        if finding is None:
            return
        assert self.closures > 3, "nothing is found before three closures"
        last = finding.since[-1]
        assert finding.since[0].rate < finding.usual.rate
        if finding.change is SHORT:
            assert not self.open or len(finding.since) == 1
            self.open = True
            assert last.units <= 0.9 * finding.usual.rate * last.seconds + 1e-9
        else:
            assert self.open, "each cause follows a short closure"
            self.open = False
            self.closures = 0
            assert 2 <= len(finding.since) <= 4

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.watch._usual) <= 16
        assert len(self.watch._since) <= 3


TestWatched = Watched.TestCase
