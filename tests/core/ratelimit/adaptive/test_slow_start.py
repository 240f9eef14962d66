"""How slow start changes the bound on unconfirmed requests."""

from nanonets_proxy.core.ratelimit.adaptive.slow_start import SlowStart


def test_quick_responses_narrow_a_cold_start_and_slow_ones_widen_it() -> None:
    quick, slow = SlowStart(10), SlowStart(10)
    for serial in range(20):
        for slow_start, after_s in ((quick, 0.01), (slow, 2.0)):
            slow_start.unconfirmed[serial] = 0.0
            slow_start.accepted(serial, after_s)
    assert 5 < quick.max_unconfirmed < 5.5
    assert slow.max_unconfirmed == 15


def test_thousands_of_quick_responses_lift_the_bound() -> None:
    slow_start = SlowStart(10)
    for serial in range(5_000):
        slow_start.unconfirmed[serial] = 0.0
        slow_start.accepted(serial, 0.001)
    assert slow_start.max_unconfirmed > 100


def test_after_a_restart_each_accepted_request_makes_room_for_one_and_a_half() -> None:
    slow_start = SlowStart(10)
    slow_start.restart(1)
    slow_start.unconfirmed[1] = 0.0
    slow_start.accepted(1, 0.01)
    assert slow_start.max_unconfirmed == 1.5
