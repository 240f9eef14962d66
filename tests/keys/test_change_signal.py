"""The signal that wakes all waiting tasks."""

import asyncio

import pytest

from nanonets_proxy.keys.change_signal import ChangeSignal


async def test_a_notification_wakes_every_task_that_waits() -> None:
    signal = ChangeSignal()
    waiting = [asyncio.ensure_future(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    signal.notify()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)


async def test_a_notification_is_not_kept_for_later_tasks() -> None:
    signal = ChangeSignal()
    signal.notify()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(signal.wait(), 0.01)


async def test_a_wait_ends_at_its_timeout() -> None:
    signal = ChangeSignal()
    await asyncio.wait_for(signal.wait(0.01), 10)
