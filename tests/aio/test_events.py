"""Waits with a time limit, and the signal that wakes all waiting tasks."""

import asyncio

import pytest

from nanonets_proxy.aio.events import ChangeSignal, wait_at_most
from support.eventually import WAIT_S


async def test_a_wait_ends_with_its_event_or_at_its_time_limit() -> None:
    event = asyncio.Event()
    await asyncio.wait_for(wait_at_most(event, 0.01), WAIT_S)
    waiting = [asyncio.ensure_future(wait_at_most(event, timeout_s)) for timeout_s in (None, 10 * WAIT_S)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    event.set()
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)


async def test_a_notification_wakes_every_task_that_waits() -> None:
    signal = ChangeSignal()
    waiting = [asyncio.ensure_future(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    signal.notify()
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)


async def test_a_notification_is_not_kept_for_later_tasks() -> None:
    signal = ChangeSignal()
    signal.notify()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(signal.wait(), 0.01)
