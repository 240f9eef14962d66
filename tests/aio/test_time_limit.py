"""A time limit whose timer serves many waits and expires only at the latest limit."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from nanonets_proxy.aio.time_limit import TimeLimit


class Timer:
    def __init__(self, at_s: float, callback: Callable[[], None]) -> None:
        self.at_s = at_s
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """The part of an event loop that a time limit needs; the test advances its clock."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[Timer] = []
        self.expired_at_s: list[float] = []
        self.limit = TimeLimit(cast("Any", self), lambda: self.expired_at_s.append(self.now_s))

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(at_s, callback))
        return self.timers[-1]

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def run_until(self, now_s: float) -> None:
        while due := [timer for timer in self.pending if timer.at_s <= now_s]:
            first = min(due, key=lambda timer: timer.at_s)
            self.timers.remove(first)
            self.now_s = max(self.now_s, first.at_s)
            first.callback()
        self.now_s = now_s


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


def test_the_limit_expires_in_time_and_leaves_no_timer(loop: ManualLoop) -> None:
    loop.limit.set(105)
    loop.run_until(104.9)
    assert loop.expired_at_s == []
    loop.run_until(200)
    assert loop.expired_at_s == [105]
    assert not loop.pending


def test_only_the_latest_limit_counts_and_one_timer_serves_all(loop: ManualLoop) -> None:
    for due_s in (105, 106, 107, 120):
        loop.limit.set(due_s)
    assert [timer.at_s for timer in loop.timers] == [105]
    loop.run_until(119)
    assert loop.expired_at_s == []
    loop.run_until(200)
    assert loop.expired_at_s == [120]


def test_a_limit_can_be_moved_earlier(loop: ManualLoop) -> None:
    loop.limit.set(150)
    loop.limit.set(105)
    loop.run_until(200)
    assert loop.expired_at_s == [105]


def test_a_timer_that_fires_early_within_the_clocks_resolution_is_in_time(loop: ManualLoop) -> None:
    loop.limit.set(105)
    loop.now_s = 104.9995
    loop.timers[0].callback()
    assert loop.expired_at_s == [104.9995]


def test_an_expired_limit_can_be_set_again(loop: ManualLoop) -> None:
    loop.limit.set(105)
    loop.run_until(110)
    loop.limit.set(115)
    loop.run_until(200)
    assert loop.expired_at_s == [105, 115]


def test_a_cancelled_limit_does_not_expire_until_it_is_set_again(loop: ManualLoop) -> None:
    loop.limit.cancel()
    loop.limit.set(105)
    loop.limit.cancel()
    loop.run_until(110)
    assert loop.expired_at_s == []
    loop.limit.set(115)
    loop.run_until(200)
    assert loop.expired_at_s == [115]
