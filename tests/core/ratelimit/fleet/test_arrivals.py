import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.fleet.arrivals import MAX_SENDERS, Arrivals

OFF_S = 5000.0
"""How far the clock of the sender is ahead."""


def test_a_message_was_sent_as_much_earlier_as_it_took_longer_than_the_fastest_one() -> None:
    arrivals = Arrivals()
    assert arrivals.sent_at_s("a", OFF_S + 10.0, 10.5) == 10.5  # nothing is known yet
    assert arrivals.sent_at_s("a", OFF_S + 11.0, 11.0) == 11.0
    assert arrivals.sent_at_s("a", OFF_S + 12.0, 12.3) == 12.0
    assert arrivals.sent_at_s("b", OFF_S + 12.0, 12.3) == 12.3


@given(st.lists(st.tuples(st.floats(0, 0.24), st.floats(0.01, 5)), min_size=1), st.floats(-1e6, 1e6))
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


def test_a_replica_that_invents_senders_takes_no_memory() -> None:
    arrivals = Arrivals()
    for number in range(3 * MAX_SENDERS):
        arrivals.sent_at_s(f"invented {number}", 0.0, 1.0 + number / 1000)
    assert len(arrivals) == MAX_SENDERS
    assert arrivals.sent_at_s("a", 100.0, 10.0) == 10.0  # a sender that is forgotten is new again
    assert arrivals.sent_at_s("a", 101.0, 11.2) == 11.0


def test_the_clock_of_a_sender_that_was_silent_for_long_is_not_known() -> None:
    """After a partition of ten hours, clocks that drift by 0.2 ms a second differ by 7 s more."""
    arrivals = Arrivals()
    arrivals.sent_at_s("a", 0.0, 0.0)
    assert arrivals.sent_at_s("a", 36000 * (1 - 2e-4), 36000.0) == 36000.0


@pytest.mark.parametrize("stood_s", [0.4, 10.0])
def test_after_a_second_the_sender_s_clock_is_known_to_have_stood_still(stood_s: float) -> None:
    """The monotonic clock does not run while a machine is suspended: each later message seems to come late."""
    arrivals = Arrivals()
    for number in range(100):
        arrivals.sent_at_s("a", number / 4, number / 4)
    for number in range(100, 200):
        at_s = number / 4 + stood_s
        late_s = at_s - arrivals.sent_at_s("a", number / 4, at_s)
        assert late_s == pytest.approx(min(stood_s, 2.0) if number < 105 else 0.0)


def test_messages_that_wait_for_a_slow_receiver_do_not_hide_its_delay() -> None:
    """It reads them at once, and later ones in time: its sender's clock ran on."""
    arrivals = Arrivals()
    for number in range(100):
        arrivals.sent_at_s("a", number / 4, number / 4)
    for number in range(100, 106):
        assert arrivals.sent_at_s("a", number / 4, 26.5) == max(number / 4, 24.5)
    for number in range(107, 200):
        assert arrivals.sent_at_s("a", number / 4, number / 4 + 0.2) == pytest.approx(number / 4)


@pytest.mark.parametrize("told_s", [1e300, -1e300, 1e18, 0.0])
def test_a_wrong_time_spoils_later_ones_for_a_second_and_by_two_seconds(told_s: float) -> None:
    arrivals = Arrivals()
    arrivals.sent_at_s("a", told_s, 50.0)
    for number in range(201, 400):
        late_s = number / 4 - arrivals.sent_at_s("a", number / 4 + 100, number / 4)
        assert 0 <= late_s <= (2.0 if number < 206 else 1e-6)
