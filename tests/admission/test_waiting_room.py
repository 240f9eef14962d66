"""The waiting room on a real loop with a real gate: waits, cancelled tasks, and shutdown."""

import asyncio
from collections.abc import Callable

import pytest

from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.news import LimitClosed, News, QuotaUsedUp
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import LargerThanLimit, RateLimited, ShuttingDown
from support.gate.virtual_loop import run_virtually

LONG_S = 60.0


async def admitted(
    room: WaitingRoom, ticket: Ticket, now_s: float, on_wait: Callable[[], None] | None = None
) -> None:
    """Waits for admission as a request does. Raises RateLimited or ShuttingDown."""
    admission = room.enter(ticket, now_s, on_wait)
    if admission is not None:
        try:
            await admission
        except asyncio.CancelledError:
            room.leave(ticket)
            raise


class Scene:
    """A waiting room whose gate has one place in flight."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.gate = Gate(GatePolicy(max_in_flight=1, max_waiting=100), lambda: 0.0)
        self.news: list[News] = []
        self.room = WaitingRoom(self.gate, self.loop, self.news.append)
        self.waits = 0

    async def admit(self, wait_s: float = LONG_S) -> Ticket:
        """Waits with a new ticket until it is admitted."""
        now_s = self.loop.time()
        return await self._enter(Ticket("account", now_s + wait_s), now_s)

    async def start(self, ticket: Ticket | None = None) -> "asyncio.Task[Ticket]":
        """Starts a task for a ticket, by default a new one. Runs it until it waits or has its permit."""
        entering = self._enter(ticket, self.loop.time()) if ticket else self.admit()
        task = asyncio.create_task(entering)
        await asyncio.sleep(0)
        return task

    async def _enter(self, ticket: Ticket, now_s: float) -> Ticket:
        await admitted(self.room, ticket, now_s, self._count_wait)
        return ticket

    def _count_wait(self) -> None:
        self.waits += 1

    def settle(self, permit: Ticket, outcome: Outcome = Outcome.SERVED, hint_s: float | None = None) -> None:
        self.room.settle(permit, outcome, hint_s)

    def assert_empty(self) -> None:
        assert (self.gate.waiting, self.gate.in_flight) == (0, 0)


# --- waiting ----------------------------------------------------------------------------------


async def test_only_a_ticket_without_a_free_place_waits() -> None:
    scene = Scene()
    first, second = await scene.start(), await scene.start()
    assert (first.done(), second.done()) == (True, False)
    assert scene.waits == 1
    scene.settle(await first)
    scene.settle(await second)
    scene.assert_empty()


async def test_a_refused_request_waits_again_ahead_of_later_requests() -> None:
    scene = Scene()
    permit = await scene.admit()
    later = await scene.start()
    scene.settle(permit, Outcome.THROTTLED, 0.01)
    again = await scene.start(permit)
    scene.settle(await again)
    assert not later.done()
    scene.settle(await later)
    scene.assert_empty()


async def test_a_deadline_ends_the_wait() -> None:
    scene = Scene()
    permit = await scene.admit()
    with pytest.raises(RateLimited) as error:
        await scene.admit(wait_s=0.02)
    assert error.value.details["reason"] == "deadline_passed"
    scene.settle(permit)
    scene.assert_empty()


async def test_a_wait_of_zero_takes_a_free_place_or_is_rejected() -> None:
    scene = Scene()
    permit = await scene.admit(wait_s=0)
    with pytest.raises(RateLimited):
        await scene.admit(wait_s=0)
    scene.settle(permit)
    scene.assert_empty()


async def test_a_ticket_whose_scope_opens_after_its_deadline_is_rejected_at_once() -> None:
    scene = Scene()
    scene.settle(await scene.admit(), Outcome.THROTTLED, 100.0)
    with pytest.raises(RateLimited) as error:
        await scene.admit(wait_s=5)
    assert error.value.retry_after_s == pytest.approx(100, abs=5)


# --- cancelled tasks --------------------------------------------------------------------------


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    scene = Scene()
    permit = await scene.admit()
    cancelled, stays = await scene.start(), await scene.start()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert scene.gate.waiting == 1
    scene.settle(permit)
    scene.settle(await stays)
    scene.assert_empty()


async def test_a_task_that_is_cancelled_after_its_grant_passes_the_permit_on() -> None:
    scene = Scene()
    permit = await scene.admit()
    cancelled, stays = await scene.start(), await scene.start()
    scene.settle(permit)  # grants a permit to the first task, which has not run yet
    cancelled.cancel()
    next_permit = await stays
    assert cancelled.cancelled()
    assert scene.gate.in_flight == 1
    scene.settle(next_permit)
    scene.assert_empty()


async def test_a_grant_to_a_task_that_is_being_cancelled_goes_to_the_next_task() -> None:
    scene = Scene()
    permit = await scene.admit()
    cancelled, stays = await scene.start(), await scene.start()
    cancelled.cancel()  # its future is cancelled at once, its task runs later
    scene.settle(permit)
    scene.settle(await stays)
    assert cancelled.cancelled()
    scene.assert_empty()


async def test_tasks_that_are_cancelled_in_the_same_turn_lose_no_permit() -> None:
    scene = Scene()
    permit = await scene.admit()
    tasks = [await scene.start() for _ in range(10)]
    scene.settle(permit)
    for task in tasks[:9]:
        task.cancel()
    scene.settle(await tasks[9])
    scene.assert_empty()


async def test_a_newcomer_behind_a_cancelled_task_is_admitted_at_once() -> None:
    scene = Scene()
    permit = await scene.admit()
    cancelled = await scene.start()
    cancelled.cancel()
    scene.gate.settle(permit, Outcome.SERVED, scene.loop.time())
    scene.settle(await scene.admit())
    assert scene.waits == 1
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    scene.assert_empty()


# --- closing ----------------------------------------------------------------------------------


async def test_closing_rejects_tickets_that_must_wait_and_leaves_permits_valid() -> None:
    scene = Scene()
    permit = await scene.admit()
    tasks = [await scene.start() for _ in range(5)]
    scene.room.close()
    for task in tasks:
        with pytest.raises(ShuttingDown):
            await task
    with pytest.raises(ShuttingDown):
        await scene.admit()
    now_s = scene.loop.time()
    assert not scene.room.try_admit(Ticket("account", now_s + LONG_S), now_s)
    assert scene.gate.in_flight == 1
    scene.settle(permit)
    need_not_wait = Ticket("account", now_s + LONG_S)
    assert scene.room.try_admit(need_not_wait, now_s)
    scene.settle(need_not_wait)
    scene.assert_empty()


async def test_a_permit_that_was_granted_before_closing_is_valid() -> None:
    scene = Scene()
    permit = await scene.admit()
    granted = await scene.start()
    scene.settle(permit)
    scene.room.close()
    scene.settle(await granted)
    scene.assert_empty()


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_task_that_is_cancelled_in_the_turn_of_closing_leaves_nothing_behind(cancelled_first: bool) -> None:
    scene = Scene()
    permit = await scene.admit()
    task = await scene.start()
    for step in (task.cancel, scene.room.close) if cancelled_first else (scene.room.close, task.cancel):
        step()
    with pytest.raises((asyncio.CancelledError, ShuttingDown)):
        await task
    scene.settle(permit)
    scene.assert_empty()


async def test_a_request_larger_than_the_whole_limit_is_rejected_whether_it_waits_or_not() -> None:
    loop = asyncio.get_running_loop()
    limits = StaticLimits((StaticLimit.parse("account 2/s"),))
    gate = Gate(GatePolicy(max_in_flight=4, max_waiting=100, static_limits=limits), lambda: 0.0)
    room = WaitingRoom(gate, loop)
    with pytest.raises(LargerThanLimit):
        room.enter(Ticket("account", loop.time() + LONG_S, cost=3), loop.time())
    unlimited, permit = Ticket("v2:other", loop.time() + LONG_S), Ticket("v2:other", loop.time() + LONG_S)
    assert room.enter(permit, loop.time()) is None
    room.settle(permit, Outcome.THROTTLED, LONG_S / 2)
    large = Ticket("v2:other", loop.time() + LONG_S, cost=3)
    futures = [room.enter(ticket, loop.time()) for ticket in (unlimited, large)]
    announced = StaticLimit("v2:other", 2, 1.0)
    gate.note_advice(permit, Advice(None, 0.0, announced), loop.time())
    room.leave(unlimited)
    assert futures[1] is not None
    with pytest.raises(LargerThanLimit):
        await futures[1]


async def test_at_most_as_many_tickets_are_paused_or_wait_to_resume_as_there_are_places() -> None:
    """Each of them keeps a connection to the upstream and a spool file."""
    scene, given_up = Scene(), []
    first = await scene.admit()
    scene.room.pause(first, lambda: given_up.append("first"))
    second = await scene.admit()
    resuming = asyncio.create_task(scene.room.resume(first))
    await asyncio.sleep(0)
    scene.room.pause(second, lambda: given_up.append("second"))
    assert (given_up, scene.gate.in_flight, resuming.done()) == (["second"], 1, False)
    scene.settle(second)
    await resuming
    scene.room.pause(first, lambda: given_up.append("first"))
    third = await scene.admit()
    scene.room.pause(third, lambda: given_up.append("third"))
    assert given_up == ["second", "first"]
    scene.settle(first)
    scene.settle(third)
    assert scene.gate.in_flight == 0


# --- news -------------------------------------------------------------------------------------


def test_the_response_that_shows_a_used_up_quota_available_again_is_news_at_once() -> None:
    async def main() -> None:
        scene = Scene()
        for _ in range(2):  # one refusal could be the request's own
            refused = await scene.admit()
            scene.room.settle(refused, Outcome.THROTTLED, None, quota_used_up=True)
            with pytest.raises(RateLimited):
                await scene.room.enter(refused, scene.loop.time())
        assert [type(news) for news in scene.news] == [QuotaUsedUp]
        await asyncio.sleep(LONG_S + 1)
        scene.settle(await scene.admit())
        (*_, closed) = scene.news
        assert isinstance(closed, LimitClosed)
        assert closed.quota_used_up
        assert closed.lasted_s == pytest.approx(LONG_S + 1, abs=0.1)
        scene.settle(await scene.admit())
        assert scene.news[-1] is closed
        scene.assert_empty()

    run_virtually(main())


def test_a_retired_room_ends_no_ticket_and_lets_nobody_enter() -> None:
    """Another gate has the tickets. To end tens of thousands of them would hold the event loop."""

    async def main() -> None:
        scene = Scene()
        await scene.admit()
        now_s = scene.loop.time()
        ticket = Ticket("account", now_s + 1.0)
        future = scene.room.enter(ticket, now_s)
        assert future is not None
        scene.room.retire()
        await asyncio.sleep(2.0)
        assert not future.done()
        with pytest.raises(ShuttingDown):
            scene.room.enter(Ticket("account", now_s + LONG_S), now_s)

    run_virtually(main())
