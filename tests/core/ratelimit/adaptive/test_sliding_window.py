"""The log of a sliding window."""

import math

from nanonets_proxy.core.ratelimit.adaptive.sliding_window import SlidingWindow


def test_the_log_is_bounded() -> None:
    window = SlidingWindow()
    for number in range(20_000):
        window.add(float(number))
    assert len(window._recent) + len(window._older) <= 2 * 8192
    assert window.granted_since(-math.inf) <= 2 * 8192
    kept = window.granted_since(-math.inf)
    window.remove(5000.0)  # this grant no longer counts
    window.remove(5000.0)
    window.remove(1.0)  # this grant is no longer in the log
    assert window.granted_since(-math.inf) == kept - 1
    assert window.nth_newest_s(1) == 19_999


def test_remove_takes_one_of_two_grants_of_the_same_instant() -> None:
    window = SlidingWindow()
    window.set(10, 10.0)
    assert [window.add(at_s) for at_s in (1.0, 2.0, 2.0, 3.0)] == [1, 2, 3, 4]
    window.remove(2.0)
    assert window.used(3.0) == 3
    assert (window.oldest_s, window.newest_s) == (1.0, 3.0)
    assert window.granted_since(2.0) == 2
