"""Waits for a fact instead of for time to pass."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

WAIT_S: Final = 60.0
"""The longest that a test waits for an event. Even on a busy machine, only a failing test waits this long."""

_POLL_S: Final = 0.002


async def until(condition: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Returns as soon as `condition` holds. Raises TimeoutError after `within_s`."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - no event announces these conditions
            await asyncio.sleep(_POLL_S)


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns as soon as `condition` holds, for tests without an event loop. Raises TimeoutError after `WAIT_S`."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError
        time.sleep(_POLL_S)


async def stable(count: Callable[[], int], *, for_s: float = 0.05) -> int:
    """Returns the value of `count` once it has not changed for `for_s` seconds."""
    loop = asyncio.get_running_loop()
    value, since_s = count(), loop.time()
    async with asyncio.timeout(WAIT_S):
        while loop.time() - since_s < for_s:
            await asyncio.sleep(_POLL_S)
            if count() != value:
                value, since_s = count(), loop.time()
    return value
