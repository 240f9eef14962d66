"""Sleeps of the machine and changes of the wall clock."""

import asyncio
import time

import pytest

from nanonets_proxy.admission.sleep_clock import slept_s
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import RateLimited
from support.eventually import WAIT_S


class Sleeper:
    """A waiting room of a machine whose sleep the test decides."""

    def __init__(self) -> None:
        self.slept_s = 7.0
        self.loop = asyncio.get_running_loop()
        self.gate = Gate(GatePolicy(max_in_flight=5, max_waiting=5), lambda: 0.0)
        self.room = WaitingRoom(self.gate, self.loop, slept_s=lambda: self.slept_s)

    def close(self, hint_s: float) -> None:
        now_s = self.loop.time()
        ticket = Ticket("account", now_s + 5)
        assert self.room.enter(ticket, now_s) is None
        self.room.settle(ticket, Outcome.THROTTLED, hint_s)

    def enter(self) -> "asyncio.Future[None] | None":
        now_s = self.loop.time()
        return self.room.enter(Ticket("account", now_s + 5), now_s)


async def test_a_closure_of_hours_is_over_after_a_sleep_of_hours() -> None:
    sleeper = Sleeper()
    sleeper.close(6 * 3600.0)
    with pytest.raises(RateLimited):
        sleeper.enter()
    sleeper.slept_s += 3 * 3600
    sleeper.room._sleep_checked_at_s -= 2.0
    with pytest.raises(RateLimited) as rejected:
        sleeper.enter()
    assert rejected.value.retry_after_s is not None
    assert 3 * 3600 - 5 < rejected.value.retry_after_s < 3 * 3600 + 1
    sleeper.slept_s += 3 * 3600 + 1  # a second more than the closure, since a loop's clock may be coarse
    sleeper.room._sleep_checked_at_s -= 2.0
    assert sleeper.enter() is None


async def test_the_error_of_two_clocks_is_no_sleep() -> None:
    sleeper = Sleeper()
    sleeper.close(4.0)
    sleeper.slept_s += 0.9
    future = sleeper.enter()
    assert future is not None
    await asyncio.sleep(0.2)
    assert not future.done()


async def test_a_changed_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = Sleeper()
    sleeper.close(0.3)
    future = sleeper.enter()
    assert future is not None
    before_s = slept_s()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    assert abs(slept_s() - before_s) < 1
    async with asyncio.timeout(WAIT_S):
        await future
