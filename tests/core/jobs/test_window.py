"""How many jobs hold a ticket."""

from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.jobs.window import Window

USUAL = Window.within(10_000, 8_000)


def test_a_lane_alone_gets_64_tickets() -> None:
    assert USUAL.room(0, 0, 1) == 64
    assert USUAL.room(64, 64, 1) == 0


def test_many_lanes_share_the_window() -> None:
    assert USUAL.room(0, 0, 16) == 32
    assert USUAL.room(0, 0, 10_000) == 1
    assert USUAL.room(0, 512, 10_000) == 0


def test_half_of_a_small_queue_stays_for_callers_that_wait() -> None:
    assert Window.within(10, 6) == Window(5, 3)
    assert Window.within(1, 1) == Window(1, 1)


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 2_000), st.integers(1, 2_000))
def test_the_window_is_never_exceeded(order: list[int], max_waiting: int, max_waiting_per_lane: int) -> None:
    window = Window.within(max_waiting, max_waiting_per_lane)
    held: dict[int, int] = {}
    for lane in order:
        room = window.room(held.get(lane, 0), sum(held.values()), len({*held, lane}))
        held[lane] = held.get(lane, 0) + room
        assert held[lane] <= window.most_per_lane
        assert sum(held.values()) <= window.most
