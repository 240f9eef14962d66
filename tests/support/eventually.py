"""Waiting for a fact instead of for time to pass."""

import asyncio
from collections.abc import Callable
from typing import Final

_LOOK_AGAIN_S: Final = 0.002


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Returns as soon as `condition` holds; a TimeoutError fails the test."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(_LOOK_AGAIN_S)


async def settled(count: Callable[[], int], *, for_s: float = 0.05) -> int:
    """The value of `count` once it has stood still for so long."""
    loop = asyncio.get_running_loop()
    value, since_s = count(), loop.time()
    async with asyncio.timeout(10):
        while loop.time() - since_s < for_s:
            await asyncio.sleep(_LOOK_AGAIN_S)
            if count() != value:
                value, since_s = count(), loop.time()
    return value
