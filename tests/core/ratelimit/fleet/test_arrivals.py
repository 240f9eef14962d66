from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.fleet.arrivals import Arrivals

OFF_S = 5000.0
"""How far the clock of the sender is ahead."""


def test_a_message_was_sent_as_much_earlier_as_it_took_longer_than_the_fastest_one() -> None:
    arrivals = Arrivals()
    assert arrivals.sent_at_s("a", OFF_S + 10.0, 10.5) == 10.5  # nothing is known yet
    assert arrivals.sent_at_s("a", OFF_S + 11.0, 11.0) == 11.0
    assert arrivals.sent_at_s("a", OFF_S + 12.0, 12.3) == 12.0
    assert arrivals.sent_at_s("b", OFF_S + 12.0, 12.3) == 12.3


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0.01, 0.6)), min_size=1), st.floats(-1e6, 1e6))
def test_the_error_is_the_time_that_the_fastest_message_took(
    messages: list[tuple[float, float]], off_s: float
) -> None:
    arrivals, at_s, fastest_s = Arrivals(), 1000.0, 1.0
    for took_s, pause_s in messages:
        at_s += pause_s
        fastest_s = min(fastest_s, took_s)
        found_s = arrivals.sent_at_s("a", at_s + off_s, at_s + took_s)
        # A fast message counts for half a minute at least, so later ones may have a larger error.
        assert at_s - 1e-6 <= found_s <= at_s + took_s
        if at_s < 1029:
            assert found_s <= at_s + fastest_s + 1e-6


def test_clocks_may_drift_apart() -> None:
    """The fastest message of the past minute counts: an hour later, a slower clock makes no message late."""
    arrivals = Arrivals()
    for second in range(3600):
        found_s = arrivals.sent_at_s("a", second * (1 - 1e-4), float(second))
        assert second - found_s < 0.0061


def test_senders_that_are_silent_for_long_are_forgotten() -> None:
    arrivals = Arrivals()
    for number in range(100):
        arrivals.sent_at_s(number, 0.0, 10.0 * number)
    assert len(arrivals) < 10


def test_a_second_after_the_machine_of_a_sender_slept_its_messages_are_not_late() -> None:
    """Its clock stood still. With the fastest message of before, each of its messages would be 5 s old."""
    arrivals = Arrivals()
    assert arrivals.sent_at_s("a", 100.0, 10.0) == 10.0
    found_s = [arrivals.sent_at_s("a", told_s, told_s - 85.0) for told_s in (101.0, 101.5, 102.0, 103.0)]
    assert found_s == [11.0, 11.5, 17.0, 18.0]


def test_messages_that_were_held_up_are_late_and_the_next_ones_are_not() -> None:
    """Redis stood still for 3 s."""
    arrivals = Arrivals()
    assert arrivals.sent_at_s("a", 100.0, 10.0) == 10.0
    messages = ((100.5, 13.5), (101.5, 13.5), (103.5, 13.5), (104.0, 14.0), (105.0, 15.25))
    assert [arrivals.sent_at_s("a", *each) for each in messages] == [10.5, 11.5, 13.5, 14.0, 15.0]
